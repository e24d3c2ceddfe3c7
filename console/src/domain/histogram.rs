//! A histogram of durations. Its buckets grow by 19 %, so that a percentile is off by 10 % at most.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Buckets for each doubling.
const PER_OCTAVE: f64 = 4.0;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram(BTreeMap<u8, u32>);

impl Histogram {
    pub fn add(&mut self, duration_us: i64) {
        let octaves = (duration_us.max(1) as f64).log2();
        let bucket = (octaves * PER_OCTAVE) as u8;
        *self.0.entry(bucket).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// The duration, in milliseconds, that this share of the requests did not exceed. `None` without requests.
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let all: u32 = self.0.values().sum();
        let wanted = (f64::from(all) * share).ceil().max(1.0);
        let mut seen = 0.0;
        self.0.iter().find_map(|(bucket, count)| {
            seen += f64::from(*count);
            let middle = 2f64.powf((f64::from(*bucket) + 0.5) / PER_OCTAVE);
            (seen >= wanted).then_some(middle / 1000.0)
        })
    }
}

/// `BUCKET:COUNT` of each bucket that has some.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (bucket, count)) in self.0.iter().enumerate() {
            let space = if place == 0 { "" } else { " " };
            write!(f, "{space}{bucket}:{count}")?;
        }
        Ok(())
    }
}

impl FromStr for Histogram {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let pair = |pair: &str| {
            let (bucket, count) = pair.split_once(':')?;
            Some((bucket.parse().ok()?, count.parse().ok()?))
        };
        text.split_whitespace().map(|part| pair(part).ok_or(())).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_off_by_ten_per_cent_at_most() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), None);
        (1..=1000).for_each(|ms| histogram.add(ms * 1000));
        for (share, ms) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let found = histogram.percentile(share).unwrap();
            assert!((found / ms - 1.0).abs() < 0.1, "{share}: {found}");
        }
    }

    #[test]
    fn a_histogram_is_read_as_it_was_written_and_adds_up() {
        let mut histogram = Histogram::default();
        [1, 5_000, 5_000, 3_600_000_000].into_iter().for_each(|us| histogram.add(us));
        assert_eq!(histogram.to_string().parse(), Ok(histogram.clone()));
        let mut doubled = histogram.clone();
        doubled.merge(&histogram);
        assert_eq!(doubled.percentile(0.5), histogram.percentile(0.5));
        assert!("1:x".parse::<Histogram>().is_err());
    }
}
