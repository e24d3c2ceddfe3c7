//! Logging with `log` and `env_logger`: one line per event, as `key=value` text or as JSON. Lines go to the OTLP
//! collector, too, if there is one.
//!
//! A line that is written within a request, a message or a job has its `request_id` and `trace_id`, from
//! [`Current`]. docs/telemetry.md lists the names of all fields.
//!
//! `RUST_LOG` sets the level (`info` by default), and `LOG_FORMAT` the format (`text` or `json`). They are
//! read here, before the configuration, so that configuration errors can be logged.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::trace::{Current, trace_id};
use crate::{limits, otlp};
use log::kv::{Key, Value, VisitSource};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("LOG_FORMAT is {0:?}: write text or json")]
    Format(String),
    /// Logging was started before.
    #[error(transparent)]
    Started(#[from] log::SetLoggerError),
}

/// Starts logging, and raises the limit of open files. `service` is the program's name in every line.
pub fn init(service: &'static str) -> Result<(), TelemetryError> {
    let write = match std::env::var("LOG_FORMAT").as_deref() {
        Ok("json") => json_line,
        Ok("text") | Err(_) => text_line,
        Ok(other) => return Err(TelemetryError::Format(other.to_owned())),
    };
    let written = env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .filter_module("actix_server", log::LevelFilter::Warn)
        .parse_default_env()
        .format(move |out, record| writeln!(out, "{}", write(service, record)))
        .build();
    let max = written.filter();
    log::set_boxed_logger(Box::new(Logger(written)))?;
    log::set_max_level(max);
    limits::raise_descriptors();
    Ok(())
}

/// Writes each line to standard error, and hands it to the exporter.
struct Logger(env_logger::Logger);

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.0.matches(record) {
            self.0.log(record);
            otlp::export_log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// The ids of the current request, message or job.
fn current_ids() -> [(&'static str, Option<String>); 2] {
    let ids = Current::with(|current| [current.request_id().map(str::to_owned), trace_id(current.context())]);
    let [request_id, trace_id] = ids.unwrap_or_default();
    [("request_id", request_id), ("trace_id", trace_id)]
}

fn text_line(service: &str, record: &log::Record<'_>) -> String {
    let mut line = Text(String::with_capacity(512));
    // Writing to a String does not fail.
    _ = write!(line.0, "{} {:<5} {service} {}", timestamp(), record.level(), record.args());
    record.key_values().visit(&mut line).unwrap_or_default();
    for (name, id) in current_ids() {
        if let Some(id) = id.filter(|_| record.key_values().get(Key::from(name)).is_none()) {
            line.pair(name, &id);
        }
    }
    line.0
}

fn json_line(service: &str, record: &log::Record<'_>) -> String {
    let mut line = Json(serde_json::Map::new());
    for (name, value) in [
        ("timestamp", timestamp()),
        ("level", record.level().to_string()),
        ("service", service.to_owned()),
        ("target", record.target().to_owned()),
        ("message", record.args().to_string()),
    ] {
        line.0.insert(name.to_owned(), value.into());
    }
    record.key_values().visit(&mut line).unwrap_or_default();
    for (name, id) in current_ids() {
        if let Some(id) = id {
            line.0.entry(name).or_insert(id.into());
        }
    }
    serde_json::Value::Object(line.0).to_string()
}

fn timestamp() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

struct Text(String);

impl Text {
    /// Values with spaces, quotes or line breaks are quoted: a line can be parsed again, and a client cannot forge a
    /// line.
    fn pair(&mut self, key: &str, value: &str) {
        let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '=');
        _ = if plain { write!(self.0, " {key}={value}") } else { write!(self.0, " {key}={value:?}") };
    }
}

impl<'kvs> VisitSource<'kvs> for Text {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        match value.to_borrowed_str() {
            Some(text) => self.pair(key.as_str(), text),
            None => self.pair(key.as_str(), &value.to_string()),
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
        let line = line(text_line);
        assert!(line.ends_with(r#"INFO  a-service request status=200 path="/a b\nINFO forged""#), "{line}");
    }

    #[test]
    fn a_json_line_is_one_object() {
        let object: serde_json::Value = serde_json::from_str(&line(json_line)).unwrap();
        assert_eq!(object["message"], "request");
        assert_eq!(object["path"], "/a b\nINFO forged");
    }

    #[test]
    fn a_line_within_a_request_has_its_ids_without_being_told() {
        let span =
            crate::trace::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", None).unwrap();
        let within = Current::new(Some(actix_web::http::header::HeaderValue::from_static("an-id")), span);
        let [text, json] = [text_line, json_line].map(|write| within.clone().sync_scope(|| line(write)));
        let ids = " request_id=an-id trace_id=0af7651916cd43dd8448eb211c80319c";
        assert!(text.ends_with(ids), "{text}");
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (object["request_id"].as_str(), object["trace_id"].as_str()),
            (Some("an-id"), Some(&ids[27..]))
        );
        assert!(!line(text_line).contains("request_id"));
    }
}
