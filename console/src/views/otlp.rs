//! Reads OTLP, as protobuf or as JSON. Unknown fields are ignored, as the specification demands.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::{logs::v1::LogRecord as OtlpRecord, trace::v1::Span as OtlpSpan};
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::domain::{Attributes, Kind, Level, Link, LogRecord, Span, SpanEvent};

/// Bytes of the name of a service or instance.
const MAX_NAME: usize = 128;

/// The two encodings that OTLP over HTTP has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    pub const ALL: [Self; 2] = [Self::Protobuf, Self::Json];

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    /// The answer that everything was accepted: an empty message.
    pub fn accepted(self) -> &'static str {
        match self {
            Self::Protobuf => "",
            Self::Json => "{}",
        }
    }

    fn decode<T: Message + Default + DeserializeOwned>(self, body: &[u8]) -> Result<T, String> {
        match self {
            Self::Protobuf => T::decode(body).map_err(|error| error.to_string()),
            // Otherwise an array would count as an object without fields.
            Self::Json if body.trim_ascii_start().first() != Some(&b'{') => Err("not an object".to_owned()),
            Self::Json => serde_json::from_slice(body).map_err(|error| error.to_string()),
        }
    }
}

/// The spans of `body`, or what is wrong with it.
pub fn spans(encoding: Encoding, body: &[u8]) -> Result<Vec<Span>, String> {
    let request: ExportTraceServiceRequest = encoding.decode(body)?;
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let source = Source::of(of_resource.resource)?;
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(source.span(span)?);
        }
    }
    Ok(spans)
}

/// The log records of `body`, or what is wrong with it.
pub fn logs(encoding: Encoding, body: &[u8]) -> Result<Vec<LogRecord>, String> {
    let request: ExportLogsServiceRequest = encoding.decode(body)?;
    let mut records = Vec::new();
    for of_resource in request.resource_logs {
        let source = Source::of(of_resource.resource)?;
        for record in of_resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            records.push(source.record(record)?);
        }
    }
    Ok(records)
}

/// Who sent it. Every record gets a copy of these names, so they are short.
struct Source {
    service: String,
    instance: Option<String>,
}

impl Source {
    fn of(resource: Option<Resource>) -> Result<Self, String> {
        let attributes = attributes(resource.unwrap_or_default().attributes);
        let text = |name: &str| match attributes.get(name).and_then(Value::as_str) {
            Some(text) if text.len() > MAX_NAME => Err(format!("{name} is longer than {MAX_NAME} bytes")),
            text => Ok(text.map(str::to_owned)),
        };
        let service = text("service.name")?.unwrap_or_else(|| "unknown".to_owned());
        Ok(Self { service, instance: text("service.instance.id")? })
    }

    fn span(&self, span: OtlpSpan) -> Result<Span, String> {
        let start_us = microseconds(span.start_time_unix_nano)?;
        let end_us = microseconds(span.end_time_unix_nano)?;
        let kind = match span.kind() {
            SpanKind::Server => Kind::Server,
            SpanKind::Client => Kind::Client,
            SpanKind::Producer => Kind::Producer,
            SpanKind::Consumer => Kind::Consumer,
            SpanKind::Internal | SpanKind::Unspecified => Kind::Internal,
        };
        let links = span
            .links
            .iter()
            .map(|link| Ok(Link { trace_id: trace_id(&link.trace_id)?, span_id: span_id(&link.span_id)? }));
        let links = links.collect::<Result<_, String>>()?;
        let events = span.events.into_iter().map(|event| {
            Ok(SpanEvent {
                at_us: microseconds(event.time_unix_nano).unwrap_or(start_us),
                name: event.name,
                attributes: attributes(event.attributes),
            })
        });
        let status = span.status.unwrap_or_default();
        Ok(Span {
            trace_id: trace_id(&span.trace_id)?,
            id: span_id(&span.span_id)?,
            parent_id: optional(&span.parent_span_id, span_id)?,
            links,
            service: self.service.clone(),
            instance: self.instance.clone(),
            name: span.name,
            kind,
            start_us,
            duration_us: (end_us - start_us).max(0),
            is_error: status.code() == StatusCode::Error,
            message: Some(status.message).filter(|message| !message.is_empty()),
            attributes: attributes(span.attributes),
            events: events.collect::<Result<_, String>>()?,
        })
    }

    fn record(&self, record: OtlpRecord) -> Result<LogRecord, String> {
        let at = match record.time_unix_nano {
            0 => record.observed_time_unix_nano,
            at => at,
        };
        let message = match record.body.map_or(Value::Null, plain) {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        };
        Ok(LogRecord {
            at_us: microseconds(at)?,
            trace_id: optional(&record.trace_id, trace_id)?,
            span_id: optional(&record.span_id, span_id)?,
            service: self.service.clone(),
            instance: self.instance.clone(),
            level: Level::of_severity(record.severity_number.into()),
            message,
            attributes: attributes(record.attributes),
        })
    }
}

/// Zero means that there is no time.
fn microseconds(nanoseconds: u64) -> Result<i64, String> {
    let microseconds = i64::try_from(nanoseconds / 1000).unwrap_or(i64::MAX);
    if microseconds > 0 { Ok(microseconds) } else { Err("a time is missing".to_owned()) }
}

/// As hexadecimal digits, in lower case.
fn trace_id(bytes: &[u8]) -> Result<String, String> {
    let id = bytes.try_into().map(u128::from_be_bytes);
    id.map(|id| format!("{id:032x}")).map_err(|_| "an id of a trace has not 16 bytes".to_owned())
}

fn span_id(bytes: &[u8]) -> Result<String, String> {
    let id = bytes.try_into().map(u64::from_be_bytes);
    id.map(|id| format!("{id:016x}")).map_err(|_| "an id of a span has not 8 bytes".to_owned())
}

fn optional(bytes: &[u8], id: fn(&[u8]) -> Result<String, String>) -> Result<Option<String>, String> {
    // Some exporters write zeros for "none".
    let is_none = bytes.iter().all(|byte| *byte == 0);
    if is_none { Ok(None) } else { id(bytes).map(Some) }
}

fn attributes(pairs: Vec<KeyValue>) -> Attributes {
    pairs.into_iter().map(|pair| (pair.key, pair.value.map_or(Value::Null, plain))).collect()
}

fn plain(value: AnyValue) -> Value {
    match value.value {
        Some(Any::StringValue(text)) => text.into(),
        Some(Any::BoolValue(value)) => value.into(),
        Some(Any::IntValue(number)) => number.into(),
        Some(Any::DoubleValue(number)) => number.into(),
        Some(Any::ArrayValue(array)) => array.values.into_iter().map(plain).collect(),
        Some(Any::KvlistValue(list)) => Value::Object(attributes(list.values)),
        Some(Any::BytesValue(bytes)) => BASE64_STANDARD.encode(bytes).into(),
        Some(Any::StringValueStrindex(_)) | None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
    use serde_json::json;

    use super::*;

    fn traces(span: &Value) -> Value {
        let resource = json!({ "attributes": [
            { "key": "service.name", "value": { "stringValue": "a-service" } },
            { "key": "service.instance.id", "value": { "stringValue": "a-service-1" } },
        ] });
        json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": [span], "more": 1 }] }] })
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
                { "key": "bytes", "value": { "bytesValue": "AAEC" } },
                { "key": "none", "value": {} },
            ],
            "events": [{ "timeUnixNano": "1800000000000000001", "name": "it happened" }],
            "links": [{ "traceId": "1af7651916cd43dd8448eb211c80319c", "spanId": "c7ad6b7169203331" }],
            "status": { "code": 2, "message": "no" },
        })
    }

    /// A request in both encodings.
    fn encoded(request: &Value) -> [(Encoding, Vec<u8>); 2] {
        let message: ExportTraceServiceRequest = serde_json::from_value(request.clone()).unwrap();
        [(Encoding::Protobuf, message.encode_to_vec()), (Encoding::Json, request.to_string().into_bytes())]
    }

    #[test]
    fn a_span_is_read_with_all_that_it_has_in_both_encodings() {
        for (encoding, body) in encoded(&traces(&span())) {
            let read = spans(encoding, &body).unwrap().remove(0);
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
                    "bytes": "AAEC", "none": null,
                })
            );
            assert_eq!((read.events.len(), read.message.as_deref()), (1, Some("no")));
            let link = ("1af7651916cd43dd8448eb211c80319c".to_owned(), "c7ad6b7169203331".to_owned());
            assert_eq!(read.links, [Link { trace_id: link.0, span_id: link.1 }]);
        }
    }

    #[test]
    fn a_truncated_request_is_refused_and_no_part_of_it_is_read() {
        for (encoding, body) in encoded(&traces(&span())) {
            // An empty protobuf message is one without spans.
            for end in 1..body.len() {
                assert!(spans(encoding, &body[..end]).is_err(), "{encoding:?}, {end} bytes");
            }
        }
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let [(_, mut body), _] = encoded(&traces(&span()));
        let known = spans(Encoding::Protobuf, &body).unwrap();
        // Field 15 as a number, field 14 as eight bytes, and field 13 as three.
        body.extend([15 << 3, 7, 14 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8, 13 << 3 | 2, 3, 1, 2, 3]);
        assert_eq!(spans(Encoding::Protobuf, &body).unwrap(), known);
        let mut more = traces(&span());
        more["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["more"] = json!({ "a": [1] });
        assert_eq!(spans(Encoding::Json, more.to_string().as_bytes()).unwrap(), known);
    }

    #[test]
    fn the_answer_is_an_empty_message() {
        let answer = ExportTraceServiceResponse::default();
        assert_eq!(answer.encode_to_vec(), Encoding::Protobuf.accepted().as_bytes());
        let answer: Value = serde_json::from_str(Encoding::Json.accepted()).unwrap();
        assert_eq!(answer, json!({}));
    }

    #[test]
    fn what_is_not_otlp_is_refused() {
        let with = |field: &str, value: Value| {
            let mut span = span();
            span[field] = value;
            traces(&span)
        };
        for bad in [&b""[..], b"[7]", b"\xff", b"{"] {
            assert!(spans(Encoding::Json, bad).is_err(), "{}", String::from_utf8_lossy(bad));
            assert!(logs(Encoding::Json, bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        for (field, bad) in
            [("traceId", json!("x")), ("startTimeUnixNano", json!("soon")), ("attributes", json!({}))]
        {
            let body = with(field, bad).to_string();
            assert!(spans(Encoding::Json, body.as_bytes()).is_err(), "{body}");
        }
        // A group without an end, a length beyond the end, a text that is no UTF-8, a number of eleven bytes.
        let endless = [&[8][..], &[0xff; 10]].concat();
        for bad in [&[0x0b][..], &[0x0a, 0x7f, 1], &[0x0a, 3, 0x1a, 1, 0xff], &endless[..]] {
            assert!(spans(Encoding::Protobuf, bad).is_err(), "{bad:?}");
        }
        let name = "x".repeat(MAX_NAME + 1);
        let long = traces(&span()).to_string().replace("a-service-1", &name);
        for request in [
            with("traceId", json!("")),
            with("traceId", json!("b7ad6b7169203331")),
            with("spanId", json!("b7ad6b71692033")),
            with("startTimeUnixNano", json!("0")),
            serde_json::from_str(&long).unwrap(),
        ] {
            for (encoding, body) in encoded(&request) {
                assert!(spans(encoding, &body).is_err(), "{request}");
            }
        }
    }

    #[test]
    fn values_in_values_without_end_are_refused() {
        let nested = |depth: usize| {
            // Lists of one value, in the value of an attribute of the resource.
            let fields = [1, 5].into_iter().cycle().take(2 * depth).chain([2, 1, 1, 1]);
            fields.fold(Vec::new(), |value, field| {
                [&[field << 3 | 2][..], &length(&value)[..], &value[..]].concat()
            })
        };
        assert!(spans(Encoding::Protobuf, &nested(10)).is_ok());
        assert!(spans(Encoding::Protobuf, &nested(1000)).is_err());
    }

    fn length(bytes: &[u8]) -> Vec<u8> {
        let mut written = Vec::new();
        prost::encode_length_delimiter(bytes.len(), &mut written).unwrap();
        written
    }

    #[test]
    fn a_log_record_may_be_outside_of_a_trace() {
        let record = |more: Value| {
            let mut record = json!({ "timeUnixNano": "1800000000000000000", "severityNumber": 13, "body": { "stringValue": "it is late" } });
            record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let body = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [record] }] }] });
            let message: ExportLogsServiceRequest = serde_json::from_value(body.clone()).unwrap();
            let read = logs(Encoding::Json, body.to_string().as_bytes());
            assert_eq!(read, logs(Encoding::Protobuf, &message.encode_to_vec()));
            read.map(|mut records| records.remove(0))
        };
        let plain = record(json!({ "traceId": "", "spanId": "0000000000000000" })).unwrap();
        assert_eq!(
            (plain.level, plain.message.as_str(), plain.trace_id, plain.span_id),
            (Level::Warn, "it is late", None, None)
        );
        assert!(record(json!({ "timeUnixNano": "0" })).is_err(), "no time at all");
    }
}
