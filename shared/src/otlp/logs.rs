//! Log lines, written where they are logged.

use std::sync::OnceLock;
use std::time::SystemTime;

use log::kv::{Error, Key, VisitSource};

use super::protobuf::{self, Value};
use super::queue::{Queue, Waiting, queue};
use crate::trace::Current;

/// The queue of this process.
static QUEUE: OnceLock<Queue> = OnceLock::new();
/// The number of the field `attributes` of `LogRecord`.
const ATTRIBUTES: u8 = 6;

/// `None` if there is a queue already.
pub(super) fn start() -> Option<Waiting> {
    let (queue, waiting) = queue("logs");
    QUEUE.set(queue).ok()?;
    Some(waiting)
}

/// Exports a line, with the ids of the current request or message.
pub(crate) fn record(record: &log::Record<'_>) {
    if let Some(queue) = QUEUE.get() {
        queue.push(|out| write(out, record));
    }
}

/// The fields of OTLP's `LogRecord`.
fn write(out: &mut Vec<u8>, record: &log::Record<'_>) {
    protobuf::time(out, 1, SystemTime::now());
    let (number, text) = match record.level() {
        log::Level::Error => (17, "ERROR"),
        log::Level::Warn => (13, "WARN"),
        log::Level::Info => (9, "INFO"),
        log::Level::Debug => (5, "DEBUG"),
        log::Level::Trace => (1, "TRACE"),
    };
    protobuf::uint(out, 2, number);
    protobuf::text(out, 3, text);
    match record.args().as_str() {
        Some(text) => protobuf::any(out, 5, &Value::Text(text)),
        None => protobuf::any(out, 5, &Value::Text(&record.args().to_string())),
    }
    protobuf::attribute(out, ATTRIBUTES, "target", &Value::Text(record.target()));
    let mut attributes = Attributes { out, has_request_id: false };
    // Writing to a Vec does not fail.
    record.key_values().visit(&mut attributes).unwrap_or_default();
    let Attributes { out, has_request_id } = attributes;
    Current::with(|current| {
        if let Some(id) = current.request_id().filter(|_| !has_request_id) {
            protobuf::attribute(out, ATTRIBUTES, "request_id", &Value::Text(id));
        }
        if current.context().is_valid() {
            protobuf::bytes(out, 9, &current.context().trace_id().to_bytes());
            protobuf::bytes(out, 10, &current.context().span_id().to_bytes());
        }
    });
}

struct Attributes<'a> {
    out: &'a mut Vec<u8>,
    has_request_id: bool,
}

impl<'kvs> VisitSource<'kvs> for Attributes<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: log::kv::Value<'kvs>) -> Result<(), Error> {
        self.has_request_id |= key.as_str() == "request_id";
        let mut write = |value: Value<'_>| protobuf::attribute(self.out, ATTRIBUTES, key.as_str(), &value);
        match (value.to_borrowed_str(), value.to_i64(), value.to_f64()) {
            (Some(text), ..) => write(Value::Text(text)),
            (None, Some(number), _) => write(Value::Int(number)),
            (None, None, Some(number)) => write(Value::Double(number)),
            _ => write(Value::Text(&value.to_string())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use prost::Message as _;
    use serde_json::json;

    use super::super::sender::tests::body_of;
    use super::*;
    use crate::trace::parse;

    fn written(pairs: &[(&str, log::kv::Value<'_>)]) -> serde_json::Value {
        let body = body_of(queue("logs"), |queue| {
            for _ in 0..2 {
                let text = format_args!("a {}", "\"message\"");
                let mut record = log::Record::builder();
                record.level(log::Level::Warn).target("request").key_values(&pairs);
                queue.push(|out| write(out, &record.args(text).build()));
            }
        });
        serde_json::to_value(ExportLogsServiceRequest::decode(&body[..]).unwrap()).unwrap()
    }

    #[test]
    fn a_line_has_the_ids_of_its_request_its_severity_and_its_fields() {
        let span = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None).unwrap();
        let current = Current::new(Some(HeaderValue::from_static("an-id")), span);
        let pairs = [
            ("path", log::kv::Value::from("/a\nb")),
            ("status", log::kv::Value::from(200)),
            ("ms", log::kv::Value::from(1.5)),
        ];
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
        assert_eq!((&line["traceId"], line["attributes"].as_array().unwrap().len()), (&json!(""), 1));
    }
}
