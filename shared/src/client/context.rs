//! The context of a request. It is propagated to every call that is made for the request.

use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpRequest};

use crate::problem::Problem;
use crate::resilience::Deadline;
use crate::trace::{self, Current, Span, SpanContext, SpanKind, Traceparent};

/// Tells the next hop that this hop retries, so that the next hop does not. Its value is the number of retries so far.
pub const ATTEMPT_HEADER: &str = "x-retry-attempt";

/// Request id, trace, deadline, and whether an outer hop retries. Handlers extract it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    request_id: Option<String>,
    span: Option<SpanContext>,
    deadline: Option<Deadline>,
    retried_outside: bool,
}

impl Context {
    /// The context of a background task: no request id, no trace and no deadline.
    pub fn background() -> Self {
        Self::default()
    }

    /// The context of a background task that continues the trace `traceparent`.
    pub fn in_trace(traceparent: Option<String>) -> Self {
        let span = traceparent.and_then(|traceparent| trace::parse(&traceparent, None));
        Self { span, ..Self::default() }
    }

    /// The context in which a message is handled; it belongs to the request `request_id`.
    #[cfg(feature = "db")]
    pub(crate) fn of_message(request_id: Option<String>, span: Option<SpanContext>) -> Self {
        Self { request_id, span, ..Self::default() }
    }

    /// Reads the headers of a request, after the request middleware has completed them.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self {
            request_id: text("x-request-id"),
            span: Current::span().or_else(|| trace::from_headers(headers)),
            deadline: Deadline::from_headers(headers),
            retried_outside: headers.contains_key(ATTEMPT_HEADER),
        }
    }

    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// W3C trace context, to store with work that is done later.
    pub fn traceparent(&self) -> Option<String> {
        self.span.as_ref().map(|span| Traceparent::of(span).as_str().to_owned())
    }

    /// `None` if there is no state.
    pub fn tracestate(&self) -> Option<String> {
        self.span.as_ref().map(|span| span.trace_state().header()).filter(|state| !state.is_empty())
    }

    pub fn trace_id(&self) -> Option<String> {
        self.span.as_ref().and_then(trace::trace_id)
    }

    /// Begins a span of what is done in this context: below the current span, if there is one.
    pub fn start_span(&self, kind: SpanKind, name: &'static str) -> Span {
        match (Current::span(), &self.span) {
            (None, Some(parent)) => Span::below(Some(parent), kind, name),
            (Some(_) | None, _) => Span::child(kind, name),
        }
    }

    /// The time until the caller's deadline, if it sent one.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.remaining())
    }

    /// The same, for what goes on after its caller has left.
    pub fn without_deadline(&self) -> Self {
        Self { deadline: None, ..self.clone() }
    }

    /// Whether no hop before this one retries.
    pub(super) fn is_outermost(&self) -> bool {
        !self.retried_outside
    }

    /// The headers of a call that may take at most `time`.
    pub(super) fn headers(&self, time: Duration, attempt: u32) -> Vec<(&'static str, String)> {
        let mut headers =
            vec![(Deadline::NAME, Deadline::header_value(time)), (ATTEMPT_HEADER, attempt.to_string())];
        if let Some(id) = &self.request_id {
            headers.push(("x-request-id", id.clone()));
        }
        headers
    }
}

impl FromRequest for Context {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self::from_headers(request.headers())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_trace_is_not_propagated() {
        for bad in ["", "a-b", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", "00-x\n-y-01"] {
            let context = Context::in_trace(Some(bad.to_owned()));
            assert_eq!((context.trace_id(), context.traceparent()), (None, None), "{bad}");
        }
    }
}
