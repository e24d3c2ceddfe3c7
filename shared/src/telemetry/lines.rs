//! The formats of log lines.

use std::cell::RefCell;
use std::fmt::Write as _;

use log::kv::{Key, Value, VisitSource};
use time::OffsetDateTime;

use crate::trace::{Current, Traceparent};

pub(super) fn text(service: &str, record: &log::Record<'_>) -> String {
    let mut line = Text { line: String::with_capacity(512), ..Text::default() };
    timestamp(&mut line.line, OffsetDateTime::now_utc());
    // Writing to a String does not fail.
    _ = write!(line.line, " {:<5} {service} {}", record.level(), record.args());
    record.key_values().visit(&mut line).unwrap_or_default();
    with_current_ids(|name, id| match name {
        REQUEST_ID if line.has_request_id => {}
        TRACE_ID if line.has_trace_id => {}
        _ => line.pair(name, id),
    });
    line.line
}

pub(super) fn json(service: &str, record: &log::Record<'_>) -> String {
    let mut line = Json(serde_json::Map::new());
    let mut now = String::new();
    timestamp(&mut now, OffsetDateTime::now_utc());
    for (name, value) in [
        ("timestamp", now),
        ("level", record.level().to_string()),
        ("service", service.to_owned()),
        ("target", record.target().to_owned()),
        ("message", record.args().to_string()),
    ] {
        line.0.insert(name.to_owned(), value.into());
    }
    record.key_values().visit(&mut line).unwrap_or_default();
    with_current_ids(|name, id| {
        line.0.entry(name).or_insert(id.into());
    });
    serde_json::Value::Object(line.0).to_string()
}

const REQUEST_ID: &str = "request_id";
const TRACE_ID: &str = "trace_id";

/// Names and ids of the current request, message or job.
fn with_current_ids(mut add: impl FnMut(&'static str, &str)) {
    Current::with(|current| {
        if let Some(id) = current.request_id() {
            add(REQUEST_ID, id);
        }
        if current.context().is_valid() {
            add(TRACE_ID, &Traceparent::of(current.context()).as_str()[3..35]);
        }
    });
}

thread_local! {
    /// The last second that this thread has written, and its text: most lines are of the same second as the one before.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// Writes a time as RFC 3339 does, with six digits of the second.
fn timestamp(line: &mut String, now: OffsetDateTime) {
    // While the thread ends, a line has no date.
    _ = SECOND.try_with(|last| {
        let (second, text) = &mut *last.borrow_mut();
        if *second != now.unix_timestamp() {
            let (date, [hour, minute, of_minute]) = (now.date(), [now.hour(), now.minute(), now.second()]);
            *second = now.unix_timestamp();
            text.clear();
            _ = write!(text, "{date}T{hour:02}:{minute:02}:{of_minute:02}");
        }
        line.push_str(text);
    });
    let mut digits = itoa::Buffer::new();
    // The first digit is the dot's place.
    let digits = digits.format(1_000_000 + now.microsecond());
    line.push('.');
    line.push_str(&digits[1..]);
    line.push('Z');
}

#[derive(Default)]
struct Text {
    line: String,
    /// The line says it itself.
    has_request_id: bool,
    has_trace_id: bool,
}

impl Text {
    /// Values with spaces, quotes or line breaks are quoted: a line can be parsed again, and a client cannot forge a
    /// line.
    fn pair(&mut self, key: &str, value: &str) {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'=';
        self.key(key);
        match !value.is_empty() && value.bytes().all(is_plain) {
            true => self.line.push_str(value),
            false => _ = write!(self.line, "{value:?}"),
        }
    }

    fn key(&mut self, key: &str) {
        self.has_request_id |= key == REQUEST_ID;
        self.has_trace_id |= key == TRACE_ID;
        self.line.push(' ');
        self.line.push_str(key);
        self.line.push('=');
    }
}

impl<'kvs> VisitSource<'kvs> for Text {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        if let Some(text) = value.to_borrowed_str() {
            self.pair(key.as_str(), text);
        } else if let Some(number) = value.to_u64() {
            self.key(key.as_str());
            self.line.push_str(itoa::Buffer::new().format(number));
        } else {
            self.pair(key.as_str(), &value.to_string());
        }
        Ok(())
    }
}

struct Json(serde_json::Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Json {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let value = match (value.to_u64(), value.to_f64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => value.to_string().into(),
        };
        self.0.insert(key.to_string(), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn line(write: fn(&str, &log::Record<'_>) -> String) -> String {
        let pairs = [("status", "200"), ("path", "/a b\nINFO forged")];
        write(
            "a-service",
            &log::Record::builder()
                .args(format_args!("request"))
                .level(log::Level::Info)
                .key_values(&pairs)
                .build(),
        )
    }

    #[test]
    fn a_text_line_is_one_line_with_any_values() {
        let line = line(text);
        assert!(line.ends_with(r#"INFO  a-service request status=200 path="/a b\nINFO forged""#), "{line}");
    }

    #[test]
    fn a_time_has_six_digits_of_its_second() {
        for (time, expected) in [
            (datetime!(2026-01-02 03:04:05.000_600_700 UTC), "2026-01-02T03:04:05.000600Z"),
            (datetime!(2026-01-02 03:04:05.999_999_999 UTC), "2026-01-02T03:04:05.999999Z"),
            (datetime!(2026-12-31 23:59:06 UTC), "2026-12-31T23:59:06.000000Z"),
        ] {
            let mut line = String::new();
            timestamp(&mut line, time);
            assert_eq!(line, expected);
        }
    }

    #[test]
    fn a_json_line_is_one_object() {
        let object: serde_json::Value = serde_json::from_str(&line(json)).unwrap();
        assert_eq!(object["message"], "request");
        assert_eq!(object["path"], "/a b\nINFO forged");
    }

    #[test]
    fn a_line_within_a_request_has_its_ids_without_being_told() {
        let span =
            crate::trace::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", None).unwrap();
        let within = Current::new(Some(actix_web::http::header::HeaderValue::from_static("an-id")), span);
        let [text_line, json_line] = [text, json].map(|write| within.clone().sync_scope(|| line(write)));
        let ids = " request_id=an-id trace_id=0af7651916cd43dd8448eb211c80319c";
        assert!(text_line.ends_with(ids), "{text_line}");
        let object: serde_json::Value = serde_json::from_str(&json_line).unwrap();
        assert_eq!(
            (object["request_id"].as_str(), object["trace_id"].as_str()),
            (Some("an-id"), Some(&ids[27..]))
        );
        assert!(!line(text).contains("request_id"));
    }
}
