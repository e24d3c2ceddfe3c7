//! The log line of a request: written with the head of the response, or at its end if the handler adds fields.

use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::body::BodySize;
use actix_web::http::Method;
use actix_web::http::header::HeaderValue;
use actix_web::web::Bytes;
use log::kv::{Error, Key, Source, ToValue, Value, VisitSource};

use super::connection::{Exchange, Scheme};
use crate::problem::Problem;
use crate::trace::{Current, Span};

/// What a program adds to the log line of a request: [`Service::log_fields`](super::Service::log_fields). Then the line
/// is written at the end of the response.
pub trait LogFields {
    fn fields(&self, sent: Sent, problem: Option<&Problem>) -> Vec<(&'static str, Field)>;
}

/// The body of a response, as far as it was handed to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub bytes: u64,
    pub end: End,
}

impl Sent {
    /// A body of this size, sent as a whole.
    pub(super) fn whole(size: BodySize) -> Self {
        let bytes = if let BodySize::Sized(bytes) = size { bytes } else { 0 };
        Self { bytes, end: End::Whole }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Whole,
    /// The body failed, so the response broke off.
    Broken,
    /// The connection ended before the body.
    ClientGone,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    Text(String),
    Name(&'static str),
    Number(u64),
    Millis(f64),
}

impl ToValue for Field {
    fn to_value(&self) -> Value<'_> {
        match self {
            Self::Text(text) => text.to_value(),
            Self::Name(name) => name.to_value(),
            Self::Number(number) => number.to_value(),
            Self::Millis(millis) => millis.to_value(),
        }
    }
}

/// Milliseconds, with three digits of a fraction.
pub fn millis(time: Duration) -> f64 {
    (time.as_nanos() / 1000) as f64 / 1000.0
}

/// The parts of a request that are needed after its handler has run.
pub(super) struct Seen {
    pub(super) started: Instant,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) request_id: HeaderValue,
    pub(super) scheme: Scheme,
    /// The line is not of interest, unless the request fails.
    pub(super) is_quiet: bool,
    /// The connection ends after the response.
    pub(super) is_last: bool,
    pub(super) span: Span,
    /// The context of the log line.
    pub(super) current: Current,
}

impl Seen {
    pub(super) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}

/// The parts of the log line that are known with the head of the response.
pub(super) struct Line {
    pub(super) level: log::Level,
    /// `None` if the client left before there was one.
    pub(super) status: Option<u16>,
    pub(super) problem: Option<Problem>,
}

impl Line {
    pub(super) fn write(&self, seen: &Seen, route: &str, more: &[(&'static str, Field)]) {
        let pairs = Pairs { line: self, seen, route, ms: millis(seen.started.elapsed()), more };
        let served = if self.status.is_some() { "served" } else { "the client left" };
        let message = self.problem.as_ref().map_or(served, Problem::code);
        log::logger().log(
            &log::Record::builder()
                .target("request")
                .level(self.level)
                .args(format_args!("{message}"))
                .key_values(&pairs)
                .build(),
        );
    }
}

struct Pairs<'a> {
    line: &'a Line,
    seen: &'a Seen,
    route: &'a str,
    ms: f64,
    more: &'a [(&'static str, Field)],
}

impl Source for Pairs<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        visitor.visit_pair(Key::from("method"), self.seen.method.as_str().into())?;
        visitor.visit_pair(Key::from("path"), self.seen.path.as_str().into())?;
        visitor.visit_pair(Key::from("route"), self.route.into())?;
        if let Some(status) = self.line.status {
            visitor.visit_pair(Key::from("status"), status.into())?;
        }
        visitor.visit_pair(Key::from("ms"), self.ms.into())?;
        self.more.visit(visitor)
    }
}

/// A request that has no response yet. If it is dropped then, the client has left, and its line says so.
pub(super) struct Unanswered<'a> {
    seen: &'a Seen,
    exchange: Option<&'a Exchange>,
    fields: Option<&'a dyn LogFields>,
}

impl<'a> Unanswered<'a> {
    pub(super) fn new(
        seen: &'a Seen,
        exchange: Option<&'a Exchange>,
        fields: Option<&'a dyn LogFields>,
    ) -> Self {
        Self { seen, exchange, fields: fields.filter(|_| !seen.is_quiet) }
    }

    pub(super) fn answered(mut self) {
        self.fields = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Some(fields) = self.fields else { return };
        let fields = fields.fields(Sent { bytes: 0, end: End::ClientGone }, None);
        let route = self.exchange.and_then(Exchange::take_label);
        let line = Line { level: log::Level::Info, status: None, problem: None };
        let current = self.seen.current.clone();
        current.sync_scope(|| line.write(self.seen, route.as_deref().unwrap_or("-"), &fields));
    }
}

/// A line that waits for the end of the response, where it is dropped.
pub(super) struct LateLine {
    line: Line,
    seen: Seen,
    route: String,
    fields: Rc<dyn LogFields>,
    sent: Sent,
}

impl LateLine {
    pub(super) fn new(
        line: Line,
        seen: Seen,
        route: &str,
        size: BodySize,
        fields: Rc<dyn LogFields>,
    ) -> Self {
        // An empty body is never asked for its parts, nor is that of a HEAD over HTTP/2.
        let is_whole = size.is_eof() || seen.method == Method::HEAD;
        let end = if is_whole { End::Whole } else { End::ClientGone };
        Self { line, seen, route: route.to_owned(), fields, sent: Sent { bytes: 0, end } }
    }

    /// Counts a part of the body; `None` is its end.
    pub(super) fn count<E>(&mut self, part: Option<&Result<Bytes, E>>) {
        match part {
            // It is not sent.
            _ if self.seen.method == Method::HEAD => {}
            Some(Ok(part)) => self.sent.bytes += part.len() as u64,
            Some(Err(_)) => self.sent.end = End::Broken,
            None => self.sent.end = End::Whole,
        }
    }
}

impl Drop for LateLine {
    fn drop(&mut self) {
        let fields = self.fields.fields(self.sent, self.line.problem.as_ref());
        // The body is sent after the request's context has ended.
        let current = self.seen.current.clone();
        current.sync_scope(|| self.line.write(&self.seen, &self.route, &fields));
    }
}
