//! Deadline propagation: a header tells each hop how long its caller still waits.

use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// The time after which the caller no longer waits for the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(OffsetDateTime);

const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

impl Deadline {
    /// Value: RFC 3339 in UTC, with milliseconds.
    pub const HEADER: HeaderName = HeaderName::from_static("x-request-deadline");

    pub fn after(timeout: Duration) -> Self {
        Self(OffsetDateTime::now_utc() + timeout)
    }

    /// The caller's deadline; `None` if it is absent or malformed.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(Self::HEADER)?.to_str().ok()?;
        OffsetDateTime::parse(text, &Rfc3339).ok().map(Self)
    }

    /// The time left; zero if the deadline has passed.
    pub fn remaining(&self) -> Duration {
        (self.0 - OffsetDateTime::now_utc()).try_into().unwrap_or_default()
    }

    pub fn header_value(&self) -> String {
        self.0.to_offset(time::UtcOffset::UTC).format(FORMAT).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    #[test]
    fn a_deadline_survives_its_header() {
        let deadline = Deadline::after(Duration::from_secs(5));
        let mut headers = HeaderMap::new();
        headers.insert(Deadline::HEADER, HeaderValue::from_str(&deadline.header_value()).unwrap());
        let read = Deadline::from_headers(&headers).unwrap();
        assert!(deadline.remaining().abs_diff(read.remaining()) < Duration::from_millis(10));
    }

    #[test]
    fn a_past_deadline_leaves_nothing() {
        let past = Deadline(OffsetDateTime::UNIX_EPOCH);
        assert_eq!(past.remaining(), Duration::ZERO);
        assert_eq!(past.header_value(), "1970-01-01T00:00:00.000Z");
    }
}
