//! Peak EWMA: a moving average of a replica's latency that rises immediately and decays slowly (Finagle).

use std::time::{Duration, Instant};

/// Seconds until the weight of an observation falls to 1/e.
const DECAY: f64 = 10.0;

/// The average; unknown before the first observation.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PeakEwma(Option<Average>);

#[derive(Debug, Clone, Copy)]
struct Average {
    seconds: f64,
    at: Instant,
}

impl PeakEwma {
    pub(super) fn observe(&mut self, latency: Duration, now: Instant) {
        let sample = latency.as_secs_f64();
        let seconds = match self.0 {
            Some(Average { seconds, at }) if sample < seconds => {
                let weight = weight(at, now);
                seconds * weight + sample * (1.0 - weight)
            }
            _ => sample,
        };
        self.0 = Some(Average { seconds, at: now });
    }

    /// The average in seconds; it decays without new observations.
    pub(super) fn seconds(&self, now: Instant) -> Option<f64> {
        self.0.map(|Average { seconds, at }| seconds * weight(at, now))
    }
}

/// The remaining weight, 0 to 1, of an observation made at `at`.
fn weight(at: Instant, now: Instant) -> f64 {
    (-now.saturating_duration_since(at).as_secs_f64() / DECAY).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_immediately_and_falls_slowly() {
        let now = Instant::now();
        let mut ewma = PeakEwma::default();
        assert_eq!(ewma.seconds(now), None);
        ewma.observe(Duration::from_millis(100), now);
        assert_eq!(ewma.seconds(now), Some(0.1));
        let later = now + Duration::from_secs(1);
        ewma.observe(Duration::from_millis(10), later);
        assert!(ewma.seconds(later).unwrap() > 0.08);
        assert!(ewma.seconds(now + Duration::from_secs(60)).unwrap() < 0.001);
        ewma.observe(Duration::from_millis(200), later);
        assert_eq!(ewma.seconds(later), Some(0.2));
    }
}
