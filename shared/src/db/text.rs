//! Text representations of ids, times and JSON in SQLite.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

pub(super) fn undecodable(name: &str, why: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: name.to_owned(), source: Box::new(why) }
}

/// Fixed width, so that texts sort by time.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

pub(super) fn format_time(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC).format(TIME).unwrap_or_default()
}

pub(super) fn parse_time(text: &str) -> Result<OffsetDateTime, time::error::Parse> {
    PrimitiveDateTime::parse(text, TIME).map(PrimitiveDateTime::assume_utc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::now;

    #[test]
    fn times_survive_as_text_and_sort_as_text() {
        let early = now();
        let late = early + time::Duration::microseconds(1);
        assert_eq!(parse_time(&format_time(early)).unwrap(), early);
        assert!(format_time(early) < format_time(late));
    }
}
