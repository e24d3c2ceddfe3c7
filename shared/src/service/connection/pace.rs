//! The minimum rate of a transfer. Only the time in which this side waits for the client counts.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::alarm::Alarm;

/// A single wait lasts at most this many times `grace`. Without this limit, one fast burst into kernel buffers would
/// allow minutes of silence.
const MAX_WAITS: u32 = 3;

pub(super) struct Pace {
    rate: u64,
    grace: Duration,
    bytes: u64,
    waited: Duration,
    waits_since: Option<Instant>,
    alarm: Alarm,
}

impl Pace {
    /// `rate` in bytes per second. It counts after `grace`.
    pub(super) fn new(rate: u64, grace: Duration) -> Self {
        let (rate, alarm) = (rate.max(1), Alarm::default());
        Self { rate, grace, bytes: 0, waited: Duration::ZERO, waits_since: None, alarm }
    }

    pub(super) fn restart(&mut self) {
        (self.bytes, self.waited, self.waits_since) = (0, Duration::ZERO, None);
    }

    pub(super) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(since) = self.waits_since.take() {
            self.waited += since.elapsed();
        }
    }

    /// The client makes no progress now. Ready when it is slower than the rate.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let earned = self.grace + Duration::from_secs(self.bytes / self.rate);
        self.alarm.poll(cx, since + earned.saturating_sub(self.waited).min(MAX_WAITS * self.grace))
    }

    /// As [`Pace::poll_late`], with the error that ends the transfer.
    pub(super) fn poll_timeout<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.poll_late(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn seconds_until_late(pace: &mut Pace) -> u64 {
        let began = tokio::time::Instant::now();
        poll_fn(|cx| pace.poll_late(cx)).await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_is_late_when_it_is_slower_than_the_rate_after_five_seconds() {
        let mut pace = Pace::new(1024, Duration::from_secs(5));
        assert_eq!(seconds_until_late(&mut pace).await, 5);
        let mut pace = Pace::new(1024, Duration::from_secs(5));
        pace.moved(7 * 1024);
        assert_eq!(seconds_until_late(&mut pace).await, 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_beginning_does_not_pay_for_a_long_silence() {
        let mut pace = Pace::new(1024, Duration::from_secs(5));
        pace.moved(1024 * 1024 * 1024);
        assert_eq!(seconds_until_late(&mut pace).await, 15);
    }
}
