//! Logging with `log` and `env_logger`: one line per event, as `key=value` text or as JSON.
//!
//! `RUST_LOG` sets the level (`info` by default), and `LOG_FORMAT` the format (`text` or `json`). They are
//! read here, before the configuration, so that configuration errors can be logged.

use std::io::Write as _;

use crate::limits;
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
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .filter_module("actix_server", log::LevelFilter::Warn)
        .parse_default_env()
        .format(move |out, record| writeln!(out, "{}", write(service, record)))
        .try_init()?;
    limits::raise_descriptors();
    Ok(())
}

fn text_line(service: &str, record: &log::Record<'_>) -> String {
    let mut line = Text(format!("{} {:<5} {service} {}", timestamp(), record.level(), record.args()));
    // Writing to a String does not fail.
    record.key_values().visit(&mut line).unwrap_or_default();
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
    serde_json::Value::Object(line.0).to_string()
}

fn timestamp() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

struct Text(String);

impl<'kvs> VisitSource<'kvs> for Text {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let value = value.to_string();
        // Values with spaces, quotes or line breaks are quoted: a line can be parsed again, and a client
        // cannot forge a line.
        let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '=');
        let value = if plain { value } else { format!("{value:?}") };
        self.0.push_str(&format!(" {key}={value}"));
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
}
