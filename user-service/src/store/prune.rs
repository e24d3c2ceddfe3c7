//! Retention: sessions that are over, counted failures and old idempotency keys go.

use std::time::Duration;

use shared::db::{DbError, now, query};
use shared::stop::Stop;

use super::Store;

const EVERY: Duration = Duration::from_secs(600);
const FAILURES: time::Duration = time::Duration::minutes(15);

/// Prunes until told to stop.
pub async fn run(store: Store, stop: Stop) {
    while !stop.is_requested() {
        if let Err(error) = store.prune().await {
            log::warn!(error:%; "old sessions cannot be pruned");
        }
        stop.sleep(EVERY).await;
    }
}

impl Store {
    /// Deletes expired sessions with their tokens, failures that no longer count, and
    /// answers that are promised no longer.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn prune(&self) -> Result<(), DbError> {
        for (table, before) in [
            ("sessions WHERE expires_at < $1", now()),
            ("login_failures WHERE began_at < $1", now() - FAILURES),
            ("idempotency_keys WHERE expires_at < $1", now()),
        ] {
            query(format!("DELETE FROM {table}")).bind(before).execute(&self.db).await?;
        }
        Ok(())
    }
}
