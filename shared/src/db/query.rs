//! A query: SQL with `$1` placeholders, its parameters, and where it runs.

#[cfg(feature = "postgres")]
use super::postgres;
#[cfg(feature = "sqlite")]
use super::sqlite;
use super::{Column, Db, DbError, Pools, Tx, TxInner, Value, about_to};

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
    #[cfg(feature = "postgres")]
    Postgres(sqlx::postgres::PgRow),
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::sqlite::SqliteRow),
}

impl Row {
    /// The column `name`.
    ///
    /// # Errors
    /// When there is no such column or it holds something else, which is a mistake in the store.
    pub fn get<T: Column>(&self, name: &str) -> Result<T, DbError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(row) => T::from_postgres(row, name),
            #[cfg(feature = "sqlite")]
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
            #[cfg(feature = "sqlite")]
            Conn::Pool(Db(Pools::Sqlite { writer, .. })) => {
                sqlite::statement(self.sql, self.values).execute(writer).await?.rows_affected()
            }
            #[cfg(feature = "postgres")]
            Conn::Pool(Db(Pools::Postgres { pool, timeout })) => {
                let run = postgres::statement(self.sql, self.values).execute(pool);
                postgres::within(*timeout, run).await?.rows_affected()
            }
            #[cfg(feature = "sqlite")]
            Conn::Tx(Tx { inner: TxInner::Sqlite(tx), .. }) => {
                sqlite::statement(self.sql, self.values).execute(&mut **tx).await?.rows_affected()
            }
            #[cfg(feature = "postgres")]
            Conn::Tx(Tx { inner: TxInner::Postgres { tx, timeout }, .. }) => {
                let run = postgres::statement(self.sql, self.values).execute(&mut **tx);
                postgres::within(*timeout, run).await?.rows_affected()
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
            #[cfg(feature = "sqlite")]
            Conn::Pool(Db(Pools::Sqlite { readers, .. })) => {
                let rows = sqlite::statement(self.sql, self.values).fetch_all(readers).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            #[cfg(feature = "postgres")]
            Conn::Pool(Db(Pools::Postgres { pool, timeout })) => {
                let run = postgres::statement(self.sql, self.values).fetch_all(pool);
                postgres::within(*timeout, run).await?.into_iter().map(Row::Postgres).collect()
            }
            #[cfg(feature = "sqlite")]
            Conn::Tx(Tx { inner: TxInner::Sqlite(tx), .. }) => {
                let rows = sqlite::statement(self.sql, self.values).fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            #[cfg(feature = "postgres")]
            Conn::Tx(Tx { inner: TxInner::Postgres { tx, timeout }, .. }) => {
                let run = postgres::statement(self.sql, self.values).fetch_all(&mut **tx);
                postgres::within(*timeout, run).await?.into_iter().map(Row::Postgres).collect()
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
}
