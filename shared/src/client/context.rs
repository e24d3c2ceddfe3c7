//! What a request hands on to the calls that are made for it.

use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpRequest};

use crate::problem::Problem;
use crate::resilience::Deadline;
use crate::trace::trace_id;

/// The name by which a hop tells the next that it retries itself; its value counts the retries.
pub const ATTEMPT_HEADER: &str = "x-retry-attempt";

/// Request id, trace, deadline, and whether an outer hop retries. An extractor for handlers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    request_id: Option<String>,
    traceparent: Option<String>,
    deadline: Option<Deadline>,
    retried_outside: bool,
}

impl Context {
    /// No request: a background task at work.
    pub fn background() -> Self {
        Self::default()
    }

    /// A background task at work on something that began in the trace `traceparent`.
    pub fn in_trace(traceparent: Option<String>) -> Self {
        Self { traceparent, ..Self::default() }
    }

    /// The context of a request, which the request middleware has completed.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self {
            request_id: text("x-request-id"),
            traceparent: text("traceparent"),
            deadline: Deadline::from_headers(headers),
            retried_outside: headers.contains_key(ATTEMPT_HEADER),
        }
    }

    /// The request's id, if there is a request.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The W3C trace context, to be kept with what is done later for this request.
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// The trace's id.
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref().and_then(trace_id)
    }

    /// The time that the caller still waits, if it said.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.remaining())
    }

    /// Whether nobody before this hop retries.
    pub(super) fn is_outermost(&self) -> bool {
        !self.retried_outside
    }

    /// The headers of a call within this context that may take `time`.
    pub(super) fn headers(&self, time: Duration, attempt: u32) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("x-request-deadline", Deadline::after(time).header_value()),
            (ATTEMPT_HEADER, attempt.to_string()),
        ];
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
    fn what_is_no_trace_is_not_passed_on() {
        for bad in ["", "a-b", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", "00-x\n-y-01"] {
            let context = Context::in_trace(Some(bad.to_owned()));
            assert_eq!(context.trace_id(), None, "{bad}");
            let headers = context.headers(Duration::from_secs(1), 0);
            assert!(headers.iter().all(|(name, _)| *name != "traceparent"), "{bad}");
        }
    }
}
