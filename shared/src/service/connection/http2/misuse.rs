//! How often a client may misuse a connection. Pure: the caller passes the time.
//!
//! A browser resets a stream when its user leaves a page. An attacker resets each as soon as it is open: that costs the
//! client nothing, and this side a request. A malformed request, or one beyond the client's limit, costs a response.
//! On HTTP/1.1, it would cost the client the connection.

use std::time::Duration;

use tokio::time::Instant;

/// Misuses at once; then one more in each interval.
const BURST: u32 = 100;
const INTERVAL: Duration = Duration::from_millis(100);

/// A token bucket (GCRA).
#[derive(Debug, Default)]
pub(super) struct Misuse {
    /// When the bucket is full again.
    full_at: Option<Instant>,
}

impl Misuse {
    /// Counts one. Returns whether the client may go on.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + INTERVAL;
        self.full_at = Some(full_at);
        full_at <= now + BURST * INTERVAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_a_hundred_misuses_is_allowed_and_then_ten_in_each_second() {
        let (mut misuse, now) = (Misuse::default(), Instant::now());
        assert!((0..100).all(|_| misuse.allow(now)));
        assert!(!misuse.allow(now));
        let mut misuse = Misuse::default();
        assert!((0..100).all(|_| misuse.allow(now)));
        let later = now + Duration::from_secs(1);
        assert!((0..10).all(|_| misuse.allow(later)));
        assert!(!misuse.allow(later));
    }
}
