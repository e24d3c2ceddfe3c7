//! Connects a service with its database.

use std::time::Duration;

use super::Service;
use crate::db::{Db, Retention};
use crate::idempotency::{self, Running};

const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

impl Service {
    /// Adds the database as a critical health check and its connection pool to `/metrics`. Handlers can
    /// then claim idempotency keys, and expired keys are deleted.
    pub fn database(self, db: &Db) -> Self {
        let (checked, measured) = (db.clone(), db.clone());
        self.data(Running::default())
            .check("database", move || {
                let db = checked.clone();
                async move { db.ping().await.map_err(|error| error.to_string()) }
            })
            .measure(move |readings| measured.measure(readings))
            .prune(db, &idempotency::RETENTION)
    }

    /// Deletes old rows once a minute. A failure with one table does not hold up the others.
    pub fn prune(self, db: &Db, old: &'static [Retention]) -> Self {
        let db = db.clone();
        self.task("prune", move |stop| async move {
            loop {
                stop.sleep(PRUNE_INTERVAL).await;
                if stop.is_requested() {
                    return;
                }
                for rows in old {
                    if let Err(error) = db.prune(rows).await {
                        log::warn!(table = rows.table, error:%; "old rows cannot be pruned");
                    }
                }
            }
        })
    }
}
