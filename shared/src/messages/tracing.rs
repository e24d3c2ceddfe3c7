//! Spans of messages: one for each send, and one for each time that a message is handled.

use actix_web::http::header::HeaderValue;

use super::{Event, Outgoing};
use crate::trace::{Current, Recording, Span, SpanContext, SpanKind};

/// The spans of the events of a batch. The batch is sent within the returned context: in the trace of the first event,
/// and linked to the others.
pub(super) fn sending(batch: &[&Outgoing]) -> (Vec<Span>, Current) {
    let (mut spans, mut first) = (Vec::with_capacity(batch.len()), None::<Current>);
    for outgoing in batch {
        let (mut span, current) = sending_one(outgoing);
        match &first {
            None => first = Some(current),
            Some(first) => span.record(|span| span.link(first.context().clone())),
        }
        spans.push(span);
    }
    (spans, first.unwrap_or_else(|| Current::new(None, SpanContext::NONE)))
}

/// The span of a send, below the span in which the event was written, and its context.
fn sending_one(outgoing: &Outgoing) -> (Span, Current) {
    let Outgoing { destination, event, attempts, .. } = outgoing;
    let mut span = match event.span() {
        Some(writer) => Span::below(Some(&writer), SpanKind::Producer, "send"),
        None => Span::child(SpanKind::Producer, "send"),
    };
    span.record(|span| {
        span.name(format!("send {destination}"));
        describe(span, event, destination, attempts + 1);
        span.set("messaging.operation.type", "send");
    });
    let current = Current::new(request_id(event), span.context().clone());
    (span, current)
}

/// The span of handling an event: below the send, or below the span in which the event was written. The other one is
/// a link.
pub(super) fn processing(event: &Event, attempt: i64, service: &'static str) -> (Span, Current) {
    let (sender, writer) = (Current::span(), event.span());
    let sender = sender.filter(|sender| writer.as_ref().is_none_or(|w| w.trace_id() == sender.trace_id()));
    let parent = sender.as_ref().or(writer.as_ref());
    let mut span = match parent {
        Some(parent) => Span::below(Some(parent), SpanKind::Consumer, "process"),
        None => Span::child(SpanKind::Consumer, "process"),
    };
    span.record(|span| {
        span.name(format!("process {service}"));
        describe(span, event, service, attempt);
        span.set("messaging.operation.type", "process");
        if let (Some(_), Some(writer)) = (&sender, writer) {
            span.link(writer);
        }
    });
    let has_request = Current::with(|current| current.request_id().is_some()).unwrap_or(false);
    let current = match has_request {
        true => Current::below(span.context().clone()),
        false => Current::new(request_id(event), span.context().clone()),
    };
    (span, current)
}

fn describe(span: &mut Recording<'_>, event: &Event, destination: &str, attempt: i64) {
    span.set("messaging.system", "cloudevents");
    span.set("messaging.destination.name", destination.to_owned());
    span.set("messaging.message.id", event.id.to_string());
    span.set("messaging.message.conversation_id", event.subject.clone());
    span.set("messaging.message.type", event.kind.clone());
    span.set("messaging.message.attempt", attempt);
}

fn request_id(event: &Event) -> Option<HeaderValue> {
    HeaderValue::from_str(event.requestid.as_deref()?).ok()
}
