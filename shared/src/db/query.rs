//! Queries: SQL with `$1` placeholders, and parameters.

use super::{Column, Db, DbError, Pools, Tx, TxInner, TxSpan, Value, about_to};
use crate::trace::SpanContext;

pub enum Conn<'c> {
    Pool(&'c Db),
    Tx(&'c mut Tx),
}

impl Conn<'_> {
    /// Counts a statement of a transaction, for its span.
    fn counted(mut self) -> Self {
        if let Self::Tx(tx) = &mut self {
            tx.span.count_statement();
        }
        self
    }

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

/// The placeholders of `rows` rows of `columns` values, from the number `first` on: `($1, $2), ($3, $4)`.
pub fn placeholders(first: usize, columns: usize, rows: usize) -> String {
    let row = |number: usize| {
        let begin = first + number * columns;
        let row: Vec<_> = (begin..begin + columns).map(|index| format!("${index}")).collect();
        format!("({})", row.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// The rows of a statement whose text depends on their number: the last is repeated, up to a power of two. So there are few
/// different statements, and a connection keeps a limited number prepared. For updates, which may see a row twice.
pub fn padded<T>(rows: &[T]) -> Vec<&T> {
    let count = if rows.is_empty() { 0 } else { rows.len().next_power_of_two() };
    rows.iter().chain(rows.last().into_iter().cycle()).take(count).collect()
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
        Ok(match Conn::counted(conn.into()) {
            #[cfg(feature = "sqlite")]
            Conn::Pool(Db { pools: Pools::Sqlite(connections), .. }) => {
                connections.execute(self.sql, self.values).await?
            }
            #[cfg(feature = "postgres")]
            Conn::Pool(Db { pools: Pools::Postgres { connections, .. }, .. }) => {
                connections.execute(self.sql, self.values).await?
            }
            Conn::Tx(tx) => {
                let done = self.execute_in(&mut tx.inner).await;
                tx.has_failed |= done.is_err();
                done?
            }
        })
    }

    async fn execute_in(self, tx: &mut TxInner) -> Result<u64, sqlx::Error> {
        match tx {
            #[cfg(feature = "sqlite")]
            TxInner::Sqlite(tx) => tx.execute(self.sql, self.values).await,
            #[cfg(feature = "postgres")]
            TxInner::Postgres(tx) => tx.execute(self.sql, self.values).await,
        }
    }

    /// Returns all rows. On a pool it must be read-only, because it runs on a reader of SQLite.
    pub async fn fetch_all<'c>(self, conn: impl Into<Conn<'c>>) -> Result<Vec<Row>, DbError> {
        about_to(&self.sql);
        Ok(match Conn::counted(conn.into()) {
            #[cfg(feature = "sqlite")]
            Conn::Pool(Db { pools: Pools::Sqlite(connections), .. }) => {
                let rows = connections.fetch_all(self.sql, self.values).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            #[cfg(feature = "postgres")]
            Conn::Pool(Db { pools: Pools::Postgres { connections, .. }, .. }) => {
                let rows = connections.fetch_all(self.sql, self.values).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
            Conn::Tx(tx) => {
                let rows = self.fetch_all_in(&mut tx.inner).await;
                tx.has_failed |= rows.is_err();
                rows?
            }
        })
    }

    async fn fetch_all_in(self, tx: &mut TxInner) -> Result<Vec<Row>, sqlx::Error> {
        Ok(match tx {
            #[cfg(feature = "sqlite")]
            TxInner::Sqlite(tx) => {
                tx.fetch_all(self.sql, self.values).await?.into_iter().map(Row::Sqlite).collect()
            }
            #[cfg(feature = "postgres")]
            TxInner::Postgres(tx) => {
                tx.fetch_all(self.sql, self.values).await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// Runs a statement that writes, in a transaction of its own, and returns its rows. It must be idempotent: if the
    /// connection is lost, it is repeated, and the rows are those of the second run. Its span is linked to `links`.
    pub async fn write_idempotent(
        self,
        db: &Db,
        links: impl Iterator<Item = SpanContext>,
    ) -> Result<Vec<Row>, DbError> {
        about_to(&self.sql);
        let (mut span, _) = TxSpan::begin(db.system());
        span.link(links);
        span.count_statement();
        let rows = match &db.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(connections) => {
                let rows = connections.write(self.sql, self.values).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres { connections, .. } => {
                let rows = connections.fetch_all(self.sql, self.values).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        };
        span.committed();
        about_to("go on after COMMIT");
        Ok(rows)
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

#[cfg(test)]
mod tests {
    use crate::db::{query, testing};

    #[actix_web::test]
    async fn a_transaction_with_a_failed_statement_is_never_committed_even_if_the_error_is_ignored() {
        for db in testing::databases().await {
            query("CREATE TABLE things (id INTEGER PRIMARY KEY)").execute(&db).await.unwrap();
            let mut tx = db.begin().await.unwrap();
            query("INSERT INTO things (id) VALUES (1)").execute(&mut tx).await.unwrap();
            query("INSERT INTO things (id) VALUES (1)").execute(&mut tx).await.unwrap_err();
            tx.commit().await.unwrap_err();
            assert!(query("SELECT id FROM things").fetch_all(&db).await.unwrap().is_empty(), "{}", db.kind());
        }
    }
}
