//! Spans, as the SDK hands them over.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};

use super::json;
use super::queue::{Queue, Waiting, queue};
use super::sender::Sender;

/// Puts finished spans into the queue. The SDK's own processor has a thread, and does not say how many it drops.
#[derive(Debug)]
pub(super) struct Processor(Queue<SpanData>);

pub(super) fn processor() -> (Processor, Waiting<SpanData>) {
    let (queue, waiting) = queue("traces");
    (Processor(queue), waiting)
}

impl SpanProcessor for Processor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Writes spans as JSON.
#[derive(Debug)]
pub(super) struct Exporter {
    sender: Sender,
    resource: String,
}

impl Exporter {
    pub(super) fn new(sender: Sender) -> Self {
        Self { sender, resource: "[]".to_owned() }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let body = body(&self.resource, &batch);
        self.sender.post("/v1/traces", body).await.map_err(OTelSdkError::InternalFailure)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = json::resource(resource);
    }
}

fn body(resource: &str, spans: &[SpanData]) -> String {
    let mut out = String::with_capacity(512 + 1024 * spans.len());
    out.push_str("{\"resourceSpans\":[{\"resource\":{\"attributes\":");
    out.push_str(resource);
    out.push_str(concat!(
        "},\"scopeSpans\":[{\"scope\":{\"name\":\"",
        env!("CARGO_PKG_NAME"),
        "\"},\"spans\":["
    ));
    for (index, one) in spans.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        span(&mut out, one);
    }
    out.push_str("]}]}]}");
    out
}

fn span(out: &mut String, span: &SpanData) {
    let context = &span.span_context;
    out.push_str("{\"traceId\":");
    json::id(out, &context.trace_id().to_bytes());
    out.push_str(",\"spanId\":");
    json::id(out, &context.span_id().to_bytes());
    if span.parent_span_id != SpanId::INVALID {
        out.push_str(",\"parentSpanId\":");
        json::id(out, &span.parent_span_id.to_bytes());
    }
    let state = context.trace_state().header();
    if !state.is_empty() {
        out.push_str(",\"traceState\":");
        json::string(out, &state);
    }
    out.push_str(",\"name\":");
    json::string(out, &span.name);
    out.push_str(",\"kind\":");
    out.push_str(match span.span_kind {
        SpanKind::Internal => "1",
        SpanKind::Server => "2",
        SpanKind::Client => "3",
        SpanKind::Producer => "4",
        SpanKind::Consumer => "5",
    });
    out.push_str(",\"startTimeUnixNano\":");
    json::time(out, span.start_time);
    out.push_str(",\"endTimeUnixNano\":");
    json::time(out, span.end_time);
    out.push_str(",\"attributes\":");
    json::attributes(out, span.attributes.iter().map(|pair| (pair.key.as_str(), &pair.value)));
    if !span.links.links.is_empty() {
        out.push_str(",\"links\":[");
        for (index, link) in span.links.links.iter().enumerate() {
            out.push_str(if index > 0 { ",{\"traceId\":" } else { "{\"traceId\":" });
            json::id(out, &link.span_context.trace_id().to_bytes());
            out.push_str(",\"spanId\":");
            json::id(out, &link.span_context.span_id().to_bytes());
            out.push('}');
        }
        out.push(']');
    }
    out.push_str(match span.status {
        Status::Unset => ",\"status\":{}}",
        Status::Ok => ",\"status\":{\"code\":1}}",
        Status::Error { .. } => ",\"status\":{\"code\":2}}",
    });
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::SystemTime;

    use opentelemetry::trace::Link;
    use opentelemetry::{InstrumentationScope, KeyValue};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use serde_json::Value;

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
        let resource = Resource::builder_empty().with_service_name("a-service").build();
        let body = body(&json::resource(&resource), &[span.clone(), span]);
        let body: Value = serde_json::from_str(&body).unwrap();
        let group = &body["resourceSpans"][0];
        assert_eq!(group["resource"]["attributes"][0]["value"]["stringValue"], "a-service");
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
            "links": [{ "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331" }],
            "status": { "code": 2 },
        });
        assert_eq!(spans[1], expected);
    }
}
