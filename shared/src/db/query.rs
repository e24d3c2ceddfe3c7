//! A query: SQL with `$1` placeholders, its parameters, and where it runs.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Executor, Postgres, Sqlite};

use super::value::format_time;
use super::{Column, Db, DbError, Pools, Tx, TxInner, Value, about_to, within};

/// Where a query runs: on its own, or within a transaction.
pub enum Conn<'c> {
    /// On any free connection.
    Pool(&'c Db),
    /// Within this transaction.
    Tx(&'c mut Tx),
}

impl<'c> From<&'c Db> for Conn<'c> {
    fn from(db: &'c Db) -> Self {
        Self::Pool(db)
    }
}

impl<'c> From<&'c mut Tx> for Conn<'c> {
    fn from(tx: &'c mut Tx) -> Self {
        Self::Tx(tx)
    }
}

/// SQL and its parameters.
#[must_use]
pub struct Query {
    sql: String,
    values: Vec<Value>,
}

/// A query of `sql`, which is written for PostgreSQL and must hold no text from outside.
pub fn query(sql: impl Into<String>) -> Query {
    Query { sql: sql.into(), values: Vec::new() }
}

/// A row of either database.
#[derive(Debug)]
pub enum Row {
    /// Of PostgreSQL.
    Postgres(PgRow),
    /// Of SQLite.
    Sqlite(SqliteRow),
}

impl Row {
    /// The column `name`.
    ///
    /// # Errors
    /// When there is no such column or it holds something else, which is a mistake in the store.
    pub fn get<T: Column>(&self, name: &str) -> Result<T, DbError> {
        match self {
            Self::Postgres(row) => T::from_postgres(row, name),
            Self::Sqlite(row) => T::from_sqlite(row, name),
        }
        .map_err(DbError::from)
    }
}

impl Query {
    /// Gives the next placeholder its value.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it; answers how many rows it changed.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn execute<'c>(self, conn: impl Into<Conn<'c>>) -> Result<u64, DbError> {
        about_to(&self.sql);
        Ok(match conn.into() {
            Conn::Pool(Db(Pools::Sqlite { writer, .. })) => {
                self.sqlite().execute(writer).await?.rows_affected()
            }
            Conn::Pool(Db(Pools::Postgres { pool, timeout })) => {
                within(*timeout, self.postgres().execute(pool)).await?.rows_affected()
            }
            Conn::Tx(Tx { inner: TxInner::Sqlite(tx), .. }) => {
                self.sqlite().execute(&mut **tx).await?.rows_affected()
            }
            Conn::Tx(Tx { inner: TxInner::Postgres { tx, timeout }, .. }) => {
                within(*timeout, self.postgres().execute(&mut **tx)).await?.rows_affected()
            }
        })
    }

    /// Runs it; answers every row. Outside a transaction it must only read.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn fetch_all<'c>(self, conn: impl Into<Conn<'c>>) -> Result<Vec<Row>, DbError> {
        about_to(&self.sql);
        Ok(match conn.into() {
            Conn::Pool(Db(Pools::Sqlite { readers, .. })) => self.sqlite_rows(readers).await?,
            Conn::Pool(Db(Pools::Postgres { pool, timeout })) => {
                within(*timeout, self.postgres_rows(pool)).await?
            }
            Conn::Tx(Tx { inner: TxInner::Sqlite(tx), .. }) => self.sqlite_rows(&mut **tx).await?,
            Conn::Tx(Tx { inner: TxInner::Postgres { tx, timeout }, .. }) => {
                within(*timeout, self.postgres_rows(&mut **tx)).await?
            }
        })
    }

    /// Runs it; answers the first row, if any.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn fetch_optional<'c>(self, conn: impl Into<Conn<'c>>) -> Result<Option<Row>, DbError> {
        Ok(self.fetch_all(conn).await?.into_iter().next())
    }

    /// Runs it; answers the first row, which must be there.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn fetch_one<'c>(self, conn: impl Into<Conn<'c>>) -> Result<Row, DbError> {
        self.fetch_optional(conn).await?.ok_or_else(|| sqlx::Error::RowNotFound.into())
    }

    async fn sqlite_rows<'e>(
        self,
        executor: impl Executor<'e, Database = Sqlite>,
    ) -> Result<Vec<Row>, sqlx::Error> {
        Ok(self.sqlite().fetch_all(executor).await?.into_iter().map(Row::Sqlite).collect())
    }

    async fn postgres_rows<'e>(
        self,
        executor: impl Executor<'e, Database = Postgres>,
    ) -> Result<Vec<Row>, sqlx::Error> {
        Ok(self.postgres().fetch_all(executor).await?.into_iter().map(Row::Postgres).collect())
    }

    fn postgres(self) -> sqlx::query::Query<'static, Postgres, PgArguments> {
        let mut query = sqlx::query(AssertSqlSafe(self.sql));
        for value in self.values {
            query = match value {
                Value::Text(value) => query.bind(value),
                Value::Int(value) => query.bind(value),
                Value::Bool(value) => query.bind(value),
                Value::Uuid(value) => query.bind(value),
                Value::Time(value) => query.bind(value),
                Value::Json(value) => query.bind(value.map(Json)),
            };
        }
        query
    }

    fn sqlite(self) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
        let sql = self.sql.replace("FOR UPDATE SKIP LOCKED", "").replace("FOR UPDATE", "");
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for value in self.values {
            query = match value {
                Value::Text(value) => query.bind(value),
                Value::Int(value) => query.bind(value),
                Value::Bool(value) => query.bind(value),
                Value::Uuid(value) => query.bind(value.map(|id| id.to_string())),
                Value::Time(value) => query.bind(value.map(format_time)),
                Value::Json(value) => query.bind(value.map(|json| json.to_string())),
            };
        }
        query
    }
}
