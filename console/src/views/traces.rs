//! Traces and logs as the pages get them.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::domain::{LogRecord, Span};
use crate::store::Summary;

/// A trace in a list.
pub fn summary(summary: &Summary) -> Value {
    json!({
        "id": summary.trace_id,
        "at": time(summary.start_us),
        "duration_ms": ms(summary.end_us - summary.start_us),
        "service": summary.service,
        "name": summary.name,
        "spans": summary.spans,
        "errors": summary.errors,
        "services": summary.services,
        "order_id": summary.order_id,
    })
}

/// A trace, with its log records. `spans` are in the order of their begin, and not empty.
pub fn trace(spans: &[Span], logs: &[(i64, LogRecord)]) -> Value {
    let start_us = spans.iter().map(|span| span.start_us).min().unwrap_or_default();
    let end_us = spans.iter().map(Span::end_us).max().unwrap_or_default();
    let mut services: Vec<&str> = Vec::new();
    for span in spans {
        if !services.contains(&span.service.as_str()) {
            services.push(&span.service);
        }
    }
    json!({
        "id": spans.first().map(|span| &span.trace_id),
        "at": time(start_us),
        "duration_ms": ms(end_us - start_us),
        "services": services,
        "spans": spans.iter().map(|one| span(one, start_us)).collect::<Vec<_>>(),
        "logs": logs.iter().map(|(id, record)| log(*id, record, Some(start_us))).collect::<Vec<_>>(),
    })
}

fn span(span: &Span, start_us: i64) -> Value {
    let links = span.links.iter().map(|link| json!({ "trace_id": link.trace_id, "span_id": link.span_id }));
    let events = span.events.iter().map(|event| {
        json!({ "offset_ms": ms(event.at_us - start_us), "name": event.name, "attributes": event.attributes })
    });
    json!({
        "id": span.id,
        "parent_id": span.parent_id,
        "links": links.collect::<Vec<_>>(),
        "service": span.service,
        "instance": span.instance,
        "name": span.name,
        "kind": span.kind.as_str(),
        "offset_ms": ms(span.start_us - start_us),
        "duration_ms": ms(span.duration_us),
        "error": span.is_error,
        "message": span.message,
        "attributes": span.attributes,
        "events": events.collect::<Vec<_>>(),
    })
}

/// A log record; in a trace that began at `start_us`, with its place in it.
pub fn log(id: i64, record: &LogRecord, start_us: Option<i64>) -> Value {
    json!({
        "id": id,
        "at": time(record.at_us),
        "offset_ms": start_us.map(|start| ms(record.at_us - start)),
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "service": record.service,
        "instance": record.instance,
        "level": record.level.as_str(),
        "message": record.message,
        "attributes": record.attributes,
    })
}

/// RFC 3339.
pub fn time(us: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

fn ms(us: i64) -> f64 {
    us as f64 / 1000.0
}
