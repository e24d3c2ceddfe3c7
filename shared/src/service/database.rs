//! Connects a service with its database.

use super::Service;
use crate::db::Db;
use crate::idempotency::Running;

impl Service {
    /// Adds the database as a critical health check and its connection pool to `/metrics`. Handlers can
    /// then claim idempotency keys.
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
