//! Exponential backoff with full jitter.

use std::time::Duration;

/// A random delay between 0 and a ceiling that doubles with each attempt ("full jitter": Brooker,
/// "Exponential Backoff And Jitter", AWS 2015). The jitter spreads the retries of clients that failed
/// together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The ceiling after the first attempt.
    pub first: Duration,
    /// Upper bound of the ceiling.
    pub longest: Duration,
}

impl Backoff {
    /// The ceiling after `attempts` failed attempts; 1 is the first.
    pub fn ceiling(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(20);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// A random delay after `attempts` failed attempts.
    pub fn delay(&self, attempts: u32) -> Duration {
        self.ceiling(attempts).mul_f64(rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_longest() {
        let backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        let ceilings: Vec<_> = (1..=6).map(|attempts| backoff.ceiling(attempts).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.ceiling(u32::MAX), backoff.longest);
    }

    #[test]
    fn a_delay_is_anywhere_below_its_ceiling() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(1) };
        let delays: Vec<_> = (0..200).map(|_| backoff.delay(1)).collect();
        assert!(delays.iter().all(|delay| *delay < Duration::from_secs(1)));
        assert!(delays.iter().any(|delay| *delay < Duration::from_millis(500)));
        assert!(delays.iter().any(|delay| *delay > Duration::from_millis(500)));
    }
}
