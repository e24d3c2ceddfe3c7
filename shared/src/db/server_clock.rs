//! The time of a PostgreSQL server, counted on from its last answer.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::connections::Connections;

/// The server's answer to the question for its time.
struct Answer {
    told: OffsetDateTime,
    took: Duration,
    arrived: Instant,
}

#[derive(Debug)]
pub(super) struct ServerClock {
    started: Instant,
    /// The server's time at `started`, in microseconds since 1970.
    at_start: AtomicI64,
}

impl ServerClock {
    pub(super) async fn ask(connections: &Connections) -> Result<Self, sqlx::Error> {
        Ok(Self::new(ask(connections).await?))
    }

    pub(super) async fn ask_again(&self, connections: &Connections) -> Result<(), sqlx::Error> {
        self.correct(ask(connections).await?);
        Ok(())
    }

    fn new(Answer { told, took, arrived }: Answer) -> Self {
        Self { started: arrived, at_start: AtomicI64::new(micros(told + took / 2)) }
    }

    pub(super) fn now(&self, at: Instant) -> OffsetDateTime {
        let passed =
            i64::try_from(at.saturating_duration_since(self.started).as_micros()).unwrap_or(i64::MAX);
        let since_1970 = i128::from(self.at_start.load(Ordering::Relaxed).saturating_add(passed));
        OffsetDateTime::from_unix_timestamp_nanos(1_000 * since_1970).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// Corrects the time by another answer. It was `told` between question and arrival, so a slow answer cannot
    /// make a good estimate worse.
    fn correct(&self, Answer { told, took, arrived }: Answer) {
        let estimate = self.now(arrived);
        let corrected = estimate.clamp(told, told + took);
        self.at_start.fetch_add(micros(corrected) - micros(estimate), Ordering::Relaxed);
    }
}

async fn ask(connections: &Connections) -> Result<Answer, sqlx::Error> {
    // Waiting for a connection is not part of the question, and no lost connection delays the answer.
    let connection = connections.tested(connections.deadline()).await?;
    let asked = Instant::now();
    let told = connection.time().await?;
    let arrived = Instant::now();
    Ok(Answer { told, took: arrived - asked, arrived })
}

fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_time_is_counted_on_from_an_answer() {
        let (told, began) = (OffsetDateTime::UNIX_EPOCH + 100 * SECOND, Instant::now());
        let clock = ServerClock::new(Answer { told, took: 10 * MS, arrived: began + 10 * MS });
        assert_eq!(clock.now(began + 10 * MS), told + 5 * MS, "the middle of question and arrival");
        assert_eq!(clock.now(began + 10 * MS + SECOND), told + 5 * MS + SECOND);
    }

    #[test]
    fn a_slow_answer_does_not_spoil_a_good_estimate_and_a_wrong_one_is_corrected() {
        let (told, began) = (OffsetDateTime::UNIX_EPOCH + 100 * SECOND, Instant::now());
        let clock = ServerClock::new(Answer { told, took: Duration::ZERO, arrived: began });
        let arrived = began + 3 * SECOND;
        clock.correct(Answer { told: told + SECOND, took: 2 * SECOND, arrived });
        assert_eq!(clock.now(arrived), told + 3 * SECOND, "possible, so it stays");
        clock.correct(Answer { told: told + 60 * SECOND, took: MS, arrived: arrived + MS });
        assert_eq!(clock.now(arrived + MS), told + 60 * SECOND);
        clock.correct(Answer { told, took: MS, arrived: arrived + MS });
        assert_eq!(clock.now(arrived + MS), told + MS);
    }
}
