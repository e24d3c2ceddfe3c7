//! Connects a service with its database.

use std::time::Duration;

use futures_util::future::join;

use super::Service;
use crate::db::{Db, Retention};
use crate::idempotency::{self, Running};
use crate::lab::{Fault, Lab};
use crate::stop::Stop;

const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// The interval between two reads of the database's time.
const CLOCK_INTERVAL: Duration = Duration::from_secs(10);
/// A skew of the clocks that is logged, in seconds.
const NOTICED_SKEW: f64 = 0.5;

impl Service {
    /// Adds the database and its clock as critical health checks, and its connection pool to `/metrics`. Handlers
    /// can then claim idempotency keys, and expired keys are deleted.
    pub fn database(mut self, db: &Db) -> Self {
        if let Some(lab) = self.lab() {
            lab.offer(&[Fault::DatabaseLocked]);
            if db.pretend_ahead(false) {
                lab.offer(&[Fault::ClockAhead]);
            }
            let db = db.clone();
            self = self.task("lab", move |stop| async move {
                join(lock(&db, &lab, &stop), set_clock(&db, &lab, &stop)).await;
            });
        }
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

/// PostgreSQL ends a transaction that has been idle for 10 s.
const LONGEST_LOCK: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(200);

/// Locks the database as long as that fault runs.
async fn lock(db: &Db, lab: &Lab, stop: &Stop) {
    loop {
        tokio::select! {
            () = lab.begun(Fault::DatabaseLocked) => {}
            () = stop.requested() => return,
        }
        match db.begin_alone().await {
            // The fault may have ended while this waited for the lock.
            Ok(_held) if lab.acts(Fault::DatabaseLocked) => tokio::select! {
                () = lab.over(Fault::DatabaseLocked) => {}
                () = stop.sleep(LONGEST_LOCK) => {}
            },
            Ok(_) => {}
            Err(error) => {
                log::info!(error:%; "the database cannot be locked now");
                stop.sleep(RETRY).await;
            }
        }
    }
}

/// Lets the clock seem to be ahead as long as that fault runs.
async fn set_clock(db: &Db, lab: &Lab, stop: &Stop) {
    while !stop.is_requested() {
        let running = async {
            lab.begun(Fault::ClockAhead).await;
            if lab.acts(Fault::ClockAhead) {
                db.pretend_ahead(true);
                lab.over(Fault::ClockAhead).await;
            }
        };
        tokio::select! {
            () = running => {}
            () = stop.requested() => {}
        }
        db.pretend_ahead(false);
    }
}

async fn follow_clock(db: Db, stop: Stop) {
    while !stop.is_requested() {
        if let Err(error) = db.correct_clock().await {
            log::debug!(error:%; "the database's time cannot be read");
        }
        let skew = db.clock_skew();
        if skew.abs() > NOTICED_SKEW {
            log::warn!(skew; "this clock differs from the database's");
        }
        stop.sleep(CLOCK_INTERVAL).await;
    }
}
