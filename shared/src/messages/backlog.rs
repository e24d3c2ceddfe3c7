//! Counts waiting events, for the metrics: unsent events, dead letters, and the events that the broker stores for this
//! service.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;

use super::Nats;
use super::waiting::{Stored, Waiting};
use crate::db::{Db, DbError, query};
use crate::metrics::Readings;
use crate::stop::Stop;

/// The pause between two counts.
const INTERVAL: Duration = Duration::from_secs(5);
/// While the broker is about to drop an event, one of this number of counts logs a warning.
const COUNTS_PER_WARNING: u64 = 60;
/// The last counts. Clones share them.
#[derive(Debug, Default, Clone)]
pub(super) struct Backlog(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    outbox: Option<Waiting>,
    dead_letters: Option<Waiting>,
    broker: Option<Stored>,
}

impl Backlog {
    /// Counts regularly until `stop`. If a count fails, the metrics show the last one.
    pub(super) async fn run(self, db: Db, broker: Option<Nats>, service: &'static str, stop: Stop) {
        for round in 0u64.. {
            if stop.is_requested() {
                return;
            }
            match (outbox(&db).await, dead_letters(&db).await) {
                (Ok(unsent), Ok(dead)) => self.update(|counts| {
                    (counts.outbox, counts.dead_letters) = (Some(unsent), Some(dead));
                }),
                (Err(error), _) | (_, Err(error)) => log::warn!(error:%; "the backlog cannot be counted"),
            }
            if let Some(broker) = &broker {
                match broker.stored_for(service).await {
                    Ok(stored) => {
                        if stored.is_about_to_expire() && round.is_multiple_of(COUNTS_PER_WARNING) {
                            let left_s = stored.expires_in.as_secs();
                            log::warn!(count = stored.waiting.count, left_s; "the broker is about to drop events");
                        }
                        self.update(|counts| counts.broker = Some(stored));
                    }
                    Err(error) => log::debug!(error; "the broker's backlog cannot be counted"),
                }
            }
            stop.sleep(INTERVAL).await;
        }
    }

    fn update(&self, update: impl FnOnce(&mut Counts)) {
        update(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn measure(&self, readings: &mut Readings) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tell = |name, help, value: i64| readings.gauge(name, help, &[], value as f64);
        if let Some(unsent) = counts.outbox {
            tell("outbox_pending", "Events that wait to be sent.", unsent.count);
            tell("outbox_oldest_age_seconds", "How long the oldest of them has waited.", unsent.oldest_age_s);
        }
        if let Some(dead) = counts.dead_letters {
            tell("dead_letters", "Messages that wait for an admin's decision.", dead.count);
            tell(
                "dead_letters_oldest_age_seconds",
                "How long the oldest of them has waited.",
                dead.oldest_age_s,
            );
        }
        if let Some(Stored { waiting, expires_in }) = counts.broker {
            tell("broker_pending", "Events that the broker stores for this service.", waiting.count);
            tell(
                "broker_oldest_age_seconds",
                "How long the oldest event of all services has waited, if any waits for this one.",
                waiting.oldest_age_s,
            );
            let help = "Time until the broker drops that event.";
            tell("broker_oldest_expires_seconds", help, expires_in.as_secs().try_into().unwrap_or(i64::MAX));
        }
    }
}

pub(super) async fn outbox(db: &Db) -> Result<Waiting, DbError> {
    waiting(db, "SELECT COUNT(*) AS count, MIN(created_at) AS oldest FROM outbox WHERE sent_at IS NULL").await
}

async fn dead_letters(db: &Db) -> Result<Waiting, DbError> {
    waiting(db, "SELECT COUNT(*) AS count, MIN(at) AS oldest FROM dead_letters").await
}

async fn waiting(db: &Db, sql: &str) -> Result<Waiting, DbError> {
    let row = query(sql).fetch_one(db).await?;
    let oldest: Option<OffsetDateTime> = row.get("oldest")?;
    let oldest_age_s = oldest.map_or(0, |oldest| (db.now() - oldest).whole_seconds());
    Ok(Waiting { count: row.get("count")?, oldest_age_s })
}
