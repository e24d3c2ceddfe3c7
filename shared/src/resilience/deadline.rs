//! Deadline propagation: a header tells each hop how long its caller still waits. The value is a duration and not a
//! point in time, because the clocks of the hops may differ.

use std::time::{Duration, Instant};

use actix_web::http::header::{HeaderMap, HeaderName};

/// The time after which the caller no longer waits for the response, on this process's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// Value: the remaining time in whole milliseconds.
    pub const HEADER: HeaderName = HeaderName::from_static(Self::NAME);
    pub const NAME: &str = "x-request-timeout-ms";

    /// The caller's deadline, if the request was received now; `None` if it is absent or malformed.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let remaining: u32 = headers.get(Self::HEADER)?.to_str().ok()?.parse().ok()?;
        Some(Self(Instant::now() + Duration::from_millis(remaining.into())))
    }

    /// The time left; zero if the deadline has passed.
    pub fn remaining(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The header's value for a callee that has `remaining`.
    pub fn header_value(remaining: Duration) -> String {
        remaining.as_millis().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn read(value: &str) -> Option<Deadline> {
        let value = HeaderValue::from_str(value).unwrap();
        Deadline::from_headers(&HeaderMap::from_iter([(Deadline::HEADER, value)]))
    }

    #[test]
    fn the_remaining_time_survives_its_header() {
        let time = Duration::from_secs(5);
        let left = read(&Deadline::header_value(time)).unwrap().remaining();
        assert!(left <= time && left > time - Duration::from_secs(1), "{left:?}");
        assert_eq!(read("0").unwrap().remaining(), Duration::ZERO);
    }

    #[test]
    fn a_malformed_time_is_no_deadline() {
        for malformed in ["", "-1", "1.5", "5s", "99999999999", "2020-01-01T00:00:00.000Z"] {
            assert_eq!(read(malformed), None, "{malformed:?}");
        }
    }
}
