//! Spans, as the SDK hands them over.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use super::protobuf;
use super::queue::{Queue, Waiting, queue};

/// Writes finished spans into the queue. The SDK's own processor has a thread, and does not say how many it drops.
#[derive(Debug)]
pub(super) struct Processor(Queue);

pub(super) fn processor() -> (Processor, Waiting) {
    let (queue, waiting) = queue("traces");
    (Processor(queue), waiting)
}

impl SpanProcessor for Processor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.push(|out| write(out, &span));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The fields of OTLP's `Span`.
fn write(out: &mut Vec<u8>, span: &SpanData) {
    let context = &span.span_context;
    protobuf::bytes(out, 1, &context.trace_id().to_bytes());
    protobuf::bytes(out, 2, &context.span_id().to_bytes());
    let state = context.trace_state().header();
    if !state.is_empty() {
        protobuf::text(out, 3, &state);
    }
    if span.parent_span_id != SpanId::INVALID {
        protobuf::bytes(out, 4, &span.parent_span_id.to_bytes());
    }
    protobuf::text(out, 5, &span.name);
    let kind = match span.span_kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    };
    protobuf::uint(out, 6, kind);
    protobuf::time(out, 7, span.start_time);
    protobuf::time(out, 8, span.end_time);
    for pair in &span.attributes {
        protobuf::sdk_attribute(out, 9, pair.key.as_str(), &pair.value);
    }
    for link in &span.links.links {
        protobuf::message(out, 13, |out| {
            protobuf::bytes(out, 1, &link.span_context.trace_id().to_bytes());
            protobuf::bytes(out, 2, &link.span_context.span_id().to_bytes());
        });
    }
    let status = match span.status {
        Status::Unset => return,
        Status::Ok => 1,
        Status::Error { .. } => 2,
    };
    protobuf::message(out, 15, |out| protobuf::uint(out, 3, status));
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::SystemTime;

    use opentelemetry::trace::Link;
    use opentelemetry::{InstrumentationScope, KeyValue};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use prost::Message as _;

    use super::super::sender::tests::body_of;
    use super::*;
    use crate::trace::parse;

    #[test]
    fn a_span_is_written_as_otlp_asks_for() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = parse(traceparent, Some("vendor=value")).unwrap();
        let mut links = SpanLinks::default();
        links.links.push(Link::with_context(context.clone()));
        let start = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        let span = SpanData {
            parent_span_id: SpanId::from(1),
            parent_span_is_remote: true,
            span_kind: SpanKind::Consumer,
            name: Cow::Borrowed("process \"things\""),
            start_time: start,
            end_time: start + Duration::from_nanos(11),
            attributes: vec![KeyValue::new("attempt", 2)],
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: Status::error(""),
            span_context: context,
            instrumentation_scope: InstrumentationScope::builder("shared").build(),
        };
        let (processor, waiting) = processor();
        let body = body_of((processor.0, waiting), |queue| {
            (0..2).for_each(|_| queue.push(|out| write(out, &span)));
        });
        let read = ExportTraceServiceRequest::decode(&body[..]).unwrap();
        let read = serde_json::to_value(&read).unwrap();
        let group = &read["resourceSpans"][0];
        assert_eq!(group["resource"]["attributes"][0]["value"]["stringValue"], "a-service");
        assert_eq!(group["scopeSpans"][0]["scope"]["name"], "a scope");
        let spans = group["scopeSpans"][0]["spans"].as_array().unwrap();
        assert_eq!(spans.len(), 2);
        let expected = serde_json::json!({
            "traceId": "0af7651916cd43dd8448eb211c80319c",
            "spanId": "b7ad6b7169203331",
            "parentSpanId": "0000000000000001",
            "traceState": "vendor=value",
            "name": "process \"things\"",
            "kind": 5,
            "startTimeUnixNano": "1700000000123456789",
            "endTimeUnixNano": "1700000000123456800",
            "attributes": [{ "key": "attempt", "value": { "intValue": "2" } }],
            "status": { "code": 2, "message": "" },
        });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&spans[1][field], value, "{field}");
        }
        let link = &spans[1]["links"][0];
        assert_eq!(link["traceId"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(link["spanId"], "b7ad6b7169203331");
    }
}
