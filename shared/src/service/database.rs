//! Connects a service with its database.

use std::time::Duration;

use super::Service;
use crate::db::{Db, Retention};
use crate::idempotency::{self, Running};
use crate::stop::Stop;

const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// Between two questions for the database's time.
const CLOCK_INTERVAL: Duration = Duration::from_secs(10);
/// A skew of the clocks that is logged, in seconds.
const NOTICED_SKEW: f64 = 0.5;

impl Service {
    /// Adds the database and its clock as critical health checks, and its connection pool to `/metrics`. Handlers
    /// can then claim idempotency keys, and expired keys are deleted.
    pub fn database(self, db: &Db) -> Self {
        let (checked, clock, measured, followed) = (db.clone(), db.clone(), db.clone(), db.clone());
        self.data(Running::default())
            .check("database", move || {
                let db = checked.clone();
                async move { db.ping().await.map_err(|error| error.to_string()) }
            })
            .check("clock", move || std::future::ready(clock.check_clock()))
            .measure(move |readings| {
                measured.measure(readings);
                let help = "How far this process's clock is ahead of the database's.";
                readings.gauge("db_clock_skew_seconds", help, &[], measured.clock_skew());
            })
            .task("clock", move |stop| follow_clock(followed, stop))
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

async fn follow_clock(db: Db, stop: Stop) {
    while !stop.is_requested() {
        if let Err(error) = db.correct_clock().await {
            log::debug!(error:%; "the database's time cannot be read");
        }
        let skew = db.clock_skew();
        if skew.abs() > NOTICED_SKEW {
            log::warn!(skew; "this clock is ahead of the database's by so many seconds");
        }
        stop.sleep(CLOCK_INTERVAL).await;
    }
}
