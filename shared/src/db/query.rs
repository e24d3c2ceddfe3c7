//! Queries: SQL with `$1` placeholders, and parameters.

#[cfg(feature = "postgres")]
use super::postgres;
#[cfg(feature = "sqlite")]
use super::sqlite;
use super::{Column, Db, DbError, Pools, Tx, TxInner, Value, about_to};

pub enum Conn<'c> {
    Pool(&'c Db),
    Tx(&'c mut Tx),
}

impl Conn<'_> {
    /// The database's time; see [`Db::now`].
    pub fn now(&self) -> time::OffsetDateTime {
        match self {
            Self::Pool(db) => db.now(),
            Self::Tx(tx) => tx.now(),
        }
    }
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

#[must_use]
pub struct Query {
    sql: String,
    values: Vec<Value>,
}

/// `sql` is written for PostgreSQL, and must not contain input: that is bound as parameters.
pub fn query(sql: impl Into<String>) -> Query {
    Query { sql: sql.into(), values: Vec::new() }
}

#[derive(Debug)]
pub enum Row {
    #[cfg(feature = "postgres")]
    Postgres(sqlx::postgres::PgRow),
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::sqlite::SqliteRow),
}

impl Row {
    /// Reads the column `name`. An error means a bug in the store: a wrong name or type.
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
    /// Binds the next placeholder.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Returns the number of changed rows.
    pub async fn execute<'c>(self, conn: impl Into<Conn<'c>>) -> Result<u64, DbError> {
        about_to(&self.sql);
        Ok(match conn.into() {
            #[cfg(feature = "sqlite")]
            Conn::Pool(Db(Pools::Sqlite { writer, .. }, _)) => {
                sqlite::statement(self.sql, self.values).execute(writer).await?.rows_affected()
            }
            #[cfg(feature = "postgres")]
            Conn::Pool(Db(Pools::Postgres { pool, timeout, .. }, _)) => {
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

    /// Returns all rows. On a pool it must be read-only, because it runs on a reader of SQLite.
    pub async fn fetch_all<'c>(self, conn: impl Into<Conn<'c>>) -> Result<Vec<Row>, DbError> {
        about_to(&self.sql);
        Ok(match conn.into() {
            #[cfg(feature = "sqlite")]
            Conn::Pool(Db(Pools::Sqlite { readers, .. }, _)) => {
                let rows = sqlite::statement(self.sql, self.values).fetch_all(readers).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            #[cfg(feature = "postgres")]
            Conn::Pool(Db(Pools::Postgres { pool, timeout, .. }, _)) => {
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

    /// Returns the first row, if any.
    pub async fn fetch_optional<'c>(self, conn: impl Into<Conn<'c>>) -> Result<Option<Row>, DbError> {
        Ok(self.fetch_all(conn).await?.into_iter().next())
    }

    /// Returns the first row, which must exist.
    pub async fn fetch_one<'c>(self, conn: impl Into<Conn<'c>>) -> Result<Row, DbError> {
        self.fetch_optional(conn).await?.ok_or_else(|| sqlx::Error::RowNotFound.into())
    }
}
