//! A service with a database.

use super::Service;
use crate::db::Db;
use crate::idempotency::Running;

impl Service {
    /// Depends on this database: while it does not answer, the service is not ready. `/metrics` shows its
    /// connections, and handlers may claim idempotency keys in it.
    pub fn database(self, db: &Db) -> Self {
        let (checked, measured) = (db.clone(), db.clone());
        self.data(Running::default())
            .check("database", move || {
                let db = checked.clone();
                async move { db.ping().await.map_err(|error| error.to_string()) }
            })
            .measure(move |readings| measured.measure(readings))
    }
}
