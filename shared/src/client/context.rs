//! The context of a request: what is propagated to the calls made for it.

use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpRequest};

use crate::problem::Problem;
use crate::resilience::Deadline;
use crate::trace::trace_id;

/// Tells the next hop that this hop retries, so that the next does not. Its value counts the retries.
pub const ATTEMPT_HEADER: &str = "x-retry-attempt";

/// Request id, trace, deadline, and whether an outer hop retries. Handlers extract it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    request_id: Option<String>,
    traceparent: Option<String>,
    deadline: Option<Deadline>,
    retried_outside: bool,
}

impl Context {
    /// For a background task: no request id, no trace and no deadline.
    pub fn background() -> Self {
        Self::default()
    }

    /// For a background task that continues the trace `traceparent`.
    pub fn in_trace(traceparent: Option<String>) -> Self {
        Self { traceparent, ..Self::default() }
    }

    /// From the headers of a request, after the request middleware has completed them.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self {
            request_id: text("x-request-id"),
            traceparent: text("traceparent"),
            deadline: Deadline::from_headers(headers),
            retried_outside: headers.contains_key(ATTEMPT_HEADER),
        }
    }

    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// W3C trace context, to store with work that is done later.
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref().and_then(trace_id)
    }

    /// The time until the caller's deadline, if it sent one.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.remaining())
    }

    /// Whether no hop before this one retries.
    pub(super) fn is_outermost(&self) -> bool {
        !self.retried_outside
    }

    /// The headers of a call that may take `time`.
    pub(super) fn headers(&self, time: Duration, attempt: u32) -> Vec<(&'static str, String)> {
        let mut headers =
            vec![(Deadline::NAME, Deadline::header_value(time)), (ATTEMPT_HEADER, attempt.to_string())];
        if let Some(id) = &self.request_id {
            headers.push(("x-request-id", id.clone()));
        }
        if let Some(traceparent) = self.traceparent.as_deref().filter(|text| trace_id(text).is_some()) {
            headers.push(("traceparent", traceparent.to_owned()));
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
            assert_eq!(context.trace_id(), None, "{bad}");
            let headers = context.headers(Duration::from_secs(1), 0);
            assert!(headers.iter().all(|(name, _)| *name != "traceparent"), "{bad}");
        }
    }
}
