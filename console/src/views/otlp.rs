//! Reads OTLP in its JSON form. Unknown fields are ignored, as the specification demands.
//!
//! Numbers of 64 bits are text in this form; some exporters send numbers. Enumerations are numbers.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::domain::{Attributes, Kind, Level, Link, LogRecord, Span, SpanEvent};

/// Bytes of the name of a service or instance.
const MAX_NAME: usize = 128;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Traces {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    #[serde(default)]
    resource: Resource,
    #[serde(default)]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Deserialize)]
struct ScopeSpans {
    #[serde(default)]
    spans: Vec<SpanJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Logs {
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceLogs {
    #[serde(default)]
    resource: Resource,
    #[serde(default)]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeLogs {
    #[serde(default)]
    log_records: Vec<LogJson>,
}

#[derive(Deserialize, Default)]
struct Resource {
    #[serde(default)]
    attributes: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    key: String,
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson {
    trace_id: String,
    span_id: String,
    #[serde(default)]
    parent_span_id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    kind: u8,
    start_time_unix_nano: Number,
    end_time_unix_nano: Number,
    #[serde(default)]
    attributes: Vec<Pair>,
    #[serde(default)]
    events: Vec<EventJson>,
    #[serde(default)]
    links: Vec<LinkJson>,
    #[serde(default)]
    status: StatusJson,
}

#[derive(Deserialize, Default)]
struct StatusJson {
    #[serde(default)]
    code: u8,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventJson {
    time_unix_nano: Number,
    #[serde(default)]
    name: String,
    #[serde(default)]
    attributes: Vec<Pair>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinkJson {
    trace_id: String,
    span_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogJson {
    time_unix_nano: Option<Number>,
    observed_time_unix_nano: Option<Number>,
    #[serde(default)]
    severity_number: i64,
    #[serde(default)]
    body: Value,
    #[serde(default)]
    attributes: Vec<Pair>,
    #[serde(default)]
    trace_id: String,
    #[serde(default)]
    span_id: String,
}

/// Text or a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(i64),
    Text(String),
}

/// The spans of `body`, or what is wrong with it.
pub fn spans(body: &[u8]) -> Result<Vec<Span>, String> {
    let traces: Traces = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut spans = Vec::new();
    for of_resource in traces.resource_spans {
        let (service, instance) = of_resource.resource.names()?;
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(span.read(&service, instance.as_ref())?);
        }
    }
    Ok(spans)
}

/// The log records of `body`, or what is wrong with it.
pub fn logs(body: &[u8]) -> Result<Vec<LogRecord>, String> {
    let logs: Logs = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut records = Vec::new();
    for of_resource in logs.resource_logs {
        let (service, instance) = of_resource.resource.names()?;
        for record in of_resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            records.push(record.read(&service, instance.as_ref())?);
        }
    }
    Ok(records)
}

impl Resource {
    /// Service and instance. Every span of the resource gets a copy of them, so they are short.
    fn names(self) -> Result<(String, Option<String>), String> {
        let attributes = attributes(self.attributes);
        let text = |name: &str| match attributes.get(name).and_then(Value::as_str) {
            Some(text) if text.len() > MAX_NAME => Err(format!("{name} is longer than {MAX_NAME} bytes")),
            text => Ok(text.map(str::to_owned)),
        };
        Ok((text("service.name")?.unwrap_or_else(|| "unknown".to_owned()), text("service.instance.id")?))
    }
}

impl SpanJson {
    fn read(self, service: &str, instance: Option<&String>) -> Result<Span, String> {
        let start_us = self.start_time_unix_nano.microseconds()?;
        let end_us = self.end_time_unix_nano.microseconds()?;
        let events = self.events.into_iter().map(|event| {
            Ok(SpanEvent {
                at_us: event.time_unix_nano.microseconds()?,
                name: event.name,
                attributes: attributes(event.attributes),
            })
        });
        let links = self
            .links
            .into_iter()
            .map(|link| Ok(Link { trace_id: id(link.trace_id, 32)?, span_id: id(link.span_id, 16)? }));
        Ok(Span {
            trace_id: id(self.trace_id, 32)?,
            id: id(self.span_id, 16)?,
            parent_id: optional_id(self.parent_span_id, 16)?,
            links: links.collect::<Result<_, String>>()?,
            service: service.to_owned(),
            instance: instance.cloned(),
            name: self.name,
            kind: match self.kind {
                2 => Kind::Server,
                3 => Kind::Client,
                4 => Kind::Producer,
                5 => Kind::Consumer,
                _ => Kind::Internal,
            },
            start_us,
            duration_us: (end_us - start_us).max(0),
            is_error: self.status.code == 2,
            message: Some(self.status.message).filter(|message| !message.is_empty()),
            attributes: attributes(self.attributes),
            events: events.collect::<Result<_, String>>()?,
        })
    }
}

impl LogJson {
    fn read(self, service: &str, instance: Option<&String>) -> Result<LogRecord, String> {
        let at = self.time_unix_nano.or(self.observed_time_unix_nano);
        let message = match plain(self.body) {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        };
        Ok(LogRecord {
            at_us: at.ok_or("a log record has no time")?.microseconds()?,
            trace_id: optional_id(self.trace_id, 32)?,
            span_id: optional_id(self.span_id, 16)?,
            service: service.to_owned(),
            instance: instance.cloned(),
            level: Level::of_severity(self.severity_number),
            message,
            attributes: attributes(self.attributes),
        })
    }
}

impl Number {
    /// From nanoseconds.
    fn microseconds(self) -> Result<i64, String> {
        let nanoseconds = match self {
            Self::Number(number) => Ok(number),
            Self::Text(text) => text.parse().map_err(|_| format!("{text:?} is not a time")),
        };
        nanoseconds.map(|nanoseconds| nanoseconds / 1000)
    }
}

/// An id of so many hexadecimal digits, in lower case.
fn id(text: String, digits: usize) -> Result<String, String> {
    match text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(format!("{text:?} is not an id of {digits} hexadecimal digits")),
    }
}

fn optional_id(text: String, digits: usize) -> Result<Option<String>, String> {
    // Some exporters write zeros for "none".
    let is_none = text.bytes().all(|byte| byte == b'0');
    if is_none { Ok(None) } else { id(text, digits).map(Some) }
}

fn attributes(pairs: Vec<Pair>) -> Attributes {
    pairs.into_iter().map(|pair| (pair.key, plain(pair.value))).collect()
}

/// `{"stringValue": "x"}` as `"x"`, and so on.
fn plain(value: Value) -> Value {
    let Value::Object(fields) = value else { return Value::Null };
    let Some((kind, value)) = fields.into_iter().next() else { return Value::Null };
    match (kind.as_str(), value) {
        ("intValue", Value::String(text)) => {
            text.parse::<i64>().map_or(Value::String(text), |number| json!(number))
        }
        ("arrayValue", Value::Object(mut array)) => match array.remove("values") {
            Some(Value::Array(values)) => values.into_iter().map(plain).collect(),
            _ => Value::Array(Vec::new()),
        },
        ("kvlistValue", Value::Object(mut list)) => {
            let pairs =
                list.remove("values").and_then(|values| serde_json::from_value::<Vec<Pair>>(values).ok());
            Value::Object(pairs.map_or_else(Map::new, attributes))
        }
        (_, value) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(span: &Value) -> Vec<u8> {
        let resource = json!({ "attributes": [
            { "key": "service.name", "value": { "stringValue": "a-service" } },
            { "key": "service.instance.id", "value": { "stringValue": "a-service-1" } },
        ] });
        json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": [span], "more": 1 }] }] })
            .to_string()
            .into_bytes()
    }

    fn span() -> Value {
        json!({
            "traceId": "0AF7651916CD43DD8448EB211C80319C", "spanId": "b7ad6b7169203331", "parentSpanId": "",
            "name": "GET /api/things", "kind": 2,
            "startTimeUnixNano": "1800000000000000000", "endTimeUnixNano": 1_800_000_000_001_500_000_i64,
            "attributes": [
                { "key": "http.response.status_code", "value": { "intValue": "200" } },
                { "key": "ok", "value": { "boolValue": true } },
                { "key": "list", "value": { "arrayValue": { "values": [{ "stringValue": "x" }] } } },
                { "key": "map", "value": { "kvlistValue": { "values": [{ "key": "k", "value": { "doubleValue": 0.5 } }] } } },
            ],
            "events": [{ "timeUnixNano": "1800000000000000001", "name": "it happened" }],
            "links": [{ "traceId": "1af7651916cd43dd8448eb211c80319c", "spanId": "c7ad6b7169203331" }],
            "status": { "code": 2, "message": "no" },
        })
    }

    #[test]
    fn a_span_is_read_with_all_that_it_has() {
        let read = spans(&traces(&span())).unwrap().remove(0);
        assert_eq!((read.service.as_str(), read.instance.as_deref()), ("a-service", Some("a-service-1")));
        assert_eq!(
            (read.trace_id.as_str(), read.parent_id.as_deref()),
            ("0af7651916cd43dd8448eb211c80319c", None)
        );
        assert_eq!((read.kind, read.duration_us, read.is_error), (Kind::Server, 1500, true));
        assert_eq!(
            Value::Object(read.attributes),
            json!({
                "http.response.status_code": 200, "ok": true, "list": ["x"], "map": { "k": 0.5 },
            })
        );
        assert_eq!((read.events.len(), read.links.len(), read.message.as_deref()), (1, 1, Some("no")));
    }

    #[test]
    fn what_is_not_otlp_is_refused() {
        let with = |field: &str, value: Value| {
            let mut span = span();
            span[field] = value;
            traces(&span)
        };
        for bad in [
            b"".to_vec(),
            b"[]".to_vec(),
            b"{}".to_vec(),
            b"\xff".to_vec(),
            with("traceId", json!("x")),
            with("spanId", json!("b7ad6b716920333")),
            with("startTimeUnixNano", json!("soon")),
            with("attributes", json!({})),
        ] {
            assert!(spans(&bad).is_err(), "{}", String::from_utf8_lossy(&bad));
        }
        assert!(logs(b"{\"resourceSpans\":[]}").is_err());
        let name = "x".repeat(MAX_NAME + 1);
        let long = String::from_utf8(traces(&span())).unwrap().replace("a-service-1", &name);
        assert!(spans(long.as_bytes()).is_err());
    }

    #[test]
    fn a_log_record_may_be_outside_of_a_trace() {
        let record = |more: Value| {
            let mut record = json!({ "timeUnixNano": "1800000000000000000", "severityNumber": 13, "body": { "stringValue": "it is late" } });
            record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let body = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [record] }] }] }).to_string();
            logs(body.as_bytes()).map(|mut records| records.remove(0))
        };
        let plain = record(json!({ "traceId": "", "spanId": "0000000000000000" })).unwrap();
        assert_eq!(
            (plain.level, plain.message.as_str(), plain.trace_id, plain.span_id),
            (Level::Warn, "it is late", None, None)
        );
        assert!(record(json!({ "timeUnixNano": null })).is_err(), "no time at all");
    }
}
