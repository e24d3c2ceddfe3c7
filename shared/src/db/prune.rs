//! Retention: deletes old rows.

use time::Duration;

use super::{Db, DbError, query};

/// Rows of a table that are deleted after some time.
#[derive(Debug)]
pub struct Retention {
    pub table: &'static str,
    /// The columns of its primary key.
    pub key: &'static str,
    /// The column with the time from which rows are kept for `kept`; rows without a time stay.
    pub time: &'static str,
    pub kept: Duration,
}

/// Rows deleted in one transaction; few, to keep locks short.
pub(crate) const BATCH: u64 = 500;

impl Db {
    /// Deletes all old rows, in several transactions.
    pub async fn prune(&self, rows: &Retention) -> Result<(), DbError> {
        let Retention { table, key, time, kept } = rows;
        // The condition is repeated outside of the subquery, because a key may be claimed again in between. Without ORDER
        // BY, PostgreSQL reads the whole table: it expects that a third of the rows is old.
        let delete = format!(
            "DELETE FROM {table} WHERE {time} < $1 AND ({key}) IN \
             (SELECT {key} FROM {table} WHERE {time} < $1 ORDER BY {time} LIMIT {BATCH})"
        );
        let before = self.now() - *kept;
        while query(&*delete).bind(before).execute(self).await? == BATCH {}
        Ok(())
    }
}
