//! Log lines, written as JSON where they are logged.

use std::sync::OnceLock;
use std::time::SystemTime;

use log::kv::{Error, Key, Value, VisitSource};

use super::json;
use super::queue::{Queue, Waiting, queue};
use crate::trace::Current;

/// The queue of this process.
static QUEUE: OnceLock<Queue<String>> = OnceLock::new();

/// `None` if there is a queue already.
pub(super) fn start() -> Option<Waiting<String>> {
    let (queue, waiting) = queue("logs");
    QUEUE.set(queue).ok()?;
    Some(waiting)
}

/// Exports a line, with the ids of the current request or message.
pub(crate) fn record(record: &log::Record<'_>) {
    if let Some(queue) = QUEUE.get() {
        queue.push(line(record));
    }
}

pub(super) fn body(resource: &str, lines: &[String]) -> String {
    let mut out = String::with_capacity(512 + lines.iter().map(|line| line.len() + 1).sum::<usize>());
    out.push_str("{\"resourceLogs\":[{\"resource\":{\"attributes\":");
    out.push_str(resource);
    out.push_str("},\"scopeLogs\":[{\"scope\":{\"name\":\"log\"},\"logRecords\":[");
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(line);
    }
    out.push_str("]}]}]}");
    out
}

fn line(record: &log::Record<'_>) -> String {
    let mut out = String::with_capacity(512);
    out.push_str("{\"timeUnixNano\":");
    json::time(&mut out, SystemTime::now());
    let (number, text) = match record.level() {
        log::Level::Error => ("17", "ERROR"),
        log::Level::Warn => ("13", "WARN"),
        log::Level::Info => ("9", "INFO"),
        log::Level::Debug => ("5", "DEBUG"),
        log::Level::Trace => ("1", "TRACE"),
    };
    out.push_str(",\"severityNumber\":");
    out.push_str(number);
    out.push_str(",\"severityText\":\"");
    out.push_str(text);
    out.push_str("\",\"body\":{\"stringValue\":");
    match record.args().as_str() {
        Some(text) => json::string(&mut out, text),
        None => json::string(&mut out, &record.args().to_string()),
    }
    out.push_str("},\"attributes\":[");
    attribute(&mut out, "target", record.target());
    let mut attributes = Attributes { out, has_request_id: false };
    // Writing to a String does not fail.
    record.key_values().visit(&mut attributes).unwrap_or_default();
    let Attributes { mut out, has_request_id } = attributes;
    Current::with(|current| {
        if let Some(id) = current.request_id().filter(|_| !has_request_id) {
            out.push(',');
            attribute(&mut out, "request_id", id);
        }
        out.push(']');
        if current.context().is_valid() {
            out.push_str(",\"traceId\":");
            json::id(&mut out, &current.context().trace_id().to_bytes());
            out.push_str(",\"spanId\":");
            json::id(&mut out, &current.context().span_id().to_bytes());
        }
    })
    .unwrap_or_else(|| out.push(']'));
    out.push('}');
    out
}

fn attribute(out: &mut String, key: &str, text: &str) {
    out.push_str("{\"key\":");
    json::string(out, key);
    out.push_str(",\"value\":{\"stringValue\":");
    json::string(out, text);
    out.push_str("}}");
}

struct Attributes {
    out: String,
    has_request_id: bool,
}

impl<'kvs> VisitSource<'kvs> for Attributes {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let out = &mut self.out;
        out.push(',');
        self.has_request_id |= key.as_str() == "request_id";
        match (value.to_borrowed_str(), value.to_i64(), value.to_f64()) {
            (Some(text), ..) => attribute(out, key.as_str(), text),
            (None, Some(number), _) => {
                out.push_str("{\"key\":");
                json::string(out, key.as_str());
                out.push_str(&format!(",\"value\":{{\"intValue\":\"{number}\"}}}}"));
            }
            (None, None, Some(number)) if number.is_finite() => {
                out.push_str("{\"key\":");
                json::string(out, key.as_str());
                out.push_str(&format!(",\"value\":{{\"doubleValue\":{number}}}}}"));
            }
            _ => attribute(out, key.as_str(), &value.to_string()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use serde_json::json;

    use super::*;
    use crate::trace::parse;

    fn written(pairs: &[(&str, Value<'_>)]) -> serde_json::Value {
        let line = line(
            &log::Record::builder()
                .args(format_args!("a {}", "\"message\""))
                .level(log::Level::Warn)
                .target("request")
                .key_values(&pairs)
                .build(),
        );
        serde_json::from_str(&body("[]", &[line.clone(), line])).unwrap()
    }

    #[test]
    fn a_line_has_the_ids_of_its_request_its_severity_and_its_fields() {
        let span = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None).unwrap();
        let current = Current::new(Some(HeaderValue::from_static("an-id")), span);
        let pairs = [("path", Value::from("/a\nb")), ("status", Value::from(200)), ("ms", Value::from(1.5))];
        let body = current.sync_scope(|| written(&pairs));
        let line = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"][1];
        assert_eq!(line["body"]["stringValue"], "a \"message\"");
        assert_eq!((&line["severityNumber"], &line["severityText"]), (&json!(13), &json!("WARN")));
        assert_eq!(line["traceId"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(line["spanId"], "b7ad6b7169203331");
        let expected = json!([
            { "key": "target", "value": { "stringValue": "request" } },
            { "key": "path", "value": { "stringValue": "/a\nb" } },
            { "key": "status", "value": { "intValue": "200" } },
            { "key": "ms", "value": { "doubleValue": 1.5 } },
            { "key": "request_id", "value": { "stringValue": "an-id" } },
        ]);
        assert_eq!(line["attributes"], expected);
    }

    #[test]
    fn a_line_outside_of_a_request_has_no_ids() {
        let body = written(&[]);
        let line = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!((line.get("traceId"), line["attributes"].as_array().unwrap().len()), (None, 1));
    }
}
