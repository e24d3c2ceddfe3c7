//! What a request hands on to the calls that are made for it.

use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpRequest};
use uuid::Uuid;

use crate::problem::Problem;
use crate::resilience::Deadline;

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

    /// The context of a request, which the frame has completed.
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
        if let Some(traceparent) = self.traceparent.as_deref().and_then(child) {
            headers.push(("traceparent", traceparent));
        }
        headers
    }
}

/// The id of the trace that `traceparent` belongs to.
fn trace_id(traceparent: &str) -> Option<&str> {
    parsed(traceparent).map(|(trace, _)| trace)
}

/// The same trace with a span of its own.
fn child(traceparent: &str) -> Option<String> {
    let (trace, flags) = parsed(traceparent)?;
    let span = Uuid::new_v4().simple().to_string();
    Some(format!("00-{trace}-{}-{flags}", &span[..16]))
}

/// The trace id and the flags of a `version-trace-span-flags` (W3C Trace Context §3.2).
fn parsed(traceparent: &str) -> Option<(&str, &str)> {
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = traceparent.split('-');
    let [version, trace, span, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let is_whole = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    is_whole.then_some((trace, flags))
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
    fn a_call_stays_in_the_trace_with_a_span_of_its_own() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let headers = Context::in_trace(Some(parent.to_owned())).headers(Duration::from_secs(1), 0);
        let (_, child) = headers.iter().find(|(name, _)| *name == "traceparent").unwrap();
        assert_eq!(trace_id(child), trace_id(parent));
        assert_ne!(child, parent);
        assert!(child.ends_with("-00"), "whether it is sampled was decided before: {child}");
    }

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
