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
/// A skew that makes a service not ready. Tokens are checked by this process's clock.
const MAX_SKEW: f64 = 5.0;

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
            .check("clock", move || std::future::ready(tolerable(clock.clock_skew())))
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

fn tolerable(skew: f64) -> Result<(), String> {
    match skew.abs() <= MAX_SKEW {
        true => Ok(()),
        false => Err(format!("this clock is {skew:.1} s ahead of the database's")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_five_seconds_off_either_way_is_not_tolerable() {
        assert_eq!((tolerable(4.9), tolerable(-4.9)), (Ok(()), Ok(())));
        assert!(tolerable(5.1).is_err() && tolerable(-5.1).is_err());
    }
}
