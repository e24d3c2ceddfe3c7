//! What every request passes, outside in: [`middleware`], then [`deadline`], then the handler.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{self, Accept, Header as _, HeaderName, HeaderValue, Quality};
use actix_web::http::{ConnectionType, Method, StatusCode, Version};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, ResponseError as _, web};
use time::OffsetDateTime;
use uuid::Uuid;

use super::connection::{Answering, Exchange};
use super::drain::{Drain, InFlight};
use crate::client::ATTEMPT_HEADER;
use crate::problem::{PROBLEM_JSON, Problem};
use crate::resilience::Deadline;
use crate::trace::{Kind, Span};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

pub(super) struct Middleware {
    service: &'static str,
    drain: Drain,
    edge: bool,
}

/// What a handler that serves many paths puts into its answer's extensions, to be counted under.
#[derive(Debug, Clone)]
pub struct RouteLabel(pub Arc<str>);

impl Middleware {
    pub(super) fn new(service: &'static str, drain: Drain, edge: bool) -> Self {
        Self { service, drain, edge }
    }
}

/// Routes that programs ask all the time.
const QUIET: [&str; 5] = ["/health", "/metrics", "/registry", "/openapi.json", "/.well-known"];

/// What is known of a request before its handler runs, and needed after.
struct Seen {
    started: Instant,
    method: Method,
    path: String,
    request_id: HeaderValue,
    span: Span,
}

/// Gives a request its id and trace, renders errors, and writes the log.
pub(super) async fn middleware(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let Some(middleware) = request.app_data::<web::Data<Middleware>>().cloned() else {
        return Err(Problem::internal().into());
    };
    let in_flight = middleware.drain.enter();
    let is_old = request.version() == Version::HTTP_10;
    let exchange = request.conn_data::<Rc<Exchange>>().cloned();
    let answering = exchange.clone().map(Exchange::answering);
    let seen = Seen::new(&mut request, middleware.edge);
    let answered = match acceptable(&request) {
        true => next.call(request).await.map(ServiceResponse::map_into_boxed_body),
        false => Ok(request.error_response(Problem::of_status(StatusCode::NOT_ACCEPTABLE))),
    };
    // The handler has seen a body that breaks off.
    let is_slow = exchange.as_ref().is_some_and(|exchange| exchange.is_slow());
    let late = is_slow.then(|| Problem::of_status(StatusCode::REQUEST_TIMEOUT).error_response());
    match answered {
        Ok(answered) => {
            let (request, response) = answered.into_parts();
            // A response to a part of the body may be a good one.
            let is_error = response.status().is_client_error() || response.status().is_server_error();
            let response = late.filter(|_| is_error).unwrap_or(response);
            let label = response.extensions().get::<RouteLabel>().map(|label| label.0.clone());
            let pattern = if label.is_none() { request.match_pattern() } else { None };
            let route = label.as_deref().or(pattern.as_deref()).unwrap_or("-");
            let mut response = middleware.finish(&seen, route, response);
            // HTTP/1.0 has no chunks: the end of the connection is the end of the body.
            if is_old && matches!(response.body().size(), BodySize::Stream) {
                response.head_mut().no_chunking(true);
                response.head_mut().set_connection_type(ConnectionType::Close);
            }
            let client = exchange.filter(|_| is_event_stream(&response));
            Ok(ServiceResponse::new(request, response).map_body(|_, body| Counted {
                body,
                client,
                _in_flight: in_flight,
                _answering: answering,
            }))
        }
        Err(error) => {
            let response = middleware.finish(&seen, "-", late.unwrap_or_else(|| error.error_response()));
            Err(InternalError::from_response(error, response).into())
        }
    }
}

impl Seen {
    fn new(request: &mut ServiceRequest, edge: bool) -> Self {
        let headers = request.headers_mut();
        if edge {
            // Only the hops of the stack say these to each other.
            headers.remove(Deadline::HEADER);
            headers.remove(ATTEMPT_HEADER);
        }
        let given = headers.get(REQUEST_ID).filter(|id| is_request_id(id)).cloned();
        let request_id = given.unwrap_or_else(new_request_id);
        // In place of all others, which nobody has checked.
        headers.insert(REQUEST_ID, request_id.clone());
        let span = Span::below(headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()));
        if let Ok(value) = HeaderValue::from_str(span.traceparent()) {
            headers.insert(TRACEPARENT, value);
        }
        Self {
            started: Instant::now(),
            method: request.method().clone(),
            path: request.path().to_owned(),
            request_id,
            span,
        }
    }
}

/// Whether a client's id is taken over.
fn is_request_id(id: &HeaderValue) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(allowed)
}

fn new_request_id() -> HeaderValue {
    let mut text = [0; 36];
    let id: &str = Uuid::now_v7().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

impl Seen {
    fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}

/// Whether the client takes JSON, or the event stream that some resources have.
fn acceptable(request: &ServiceRequest) -> bool {
    const SERVED: [&str; 5] = ["*/*", "application/*", "application/json", PROBLEM_JSON, "text/event-stream"];
    let mut accepts = request.headers().get_all(header::ACCEPT);
    // Without a value it means the same as without the header.
    if !request.path().starts_with("/api/") || accepts.all(|accept| accept.as_bytes().trim_ascii().is_empty())
    {
        return true;
    }
    let ranges = Accept::parse(request).map(|accept| accept.0).unwrap_or_default();
    ranges.iter().any(|range| SERVED.contains(&range.item.essence_str()) && range.quality > Quality::ZERO)
}

impl Middleware {
    fn finish(&self, seen: &Seen, route: &str, response: HttpResponse<BoxBody>) -> HttpResponse<BoxBody> {
        let (mut response, problem) = self.render(seen, response);
        response.headers_mut().insert(REQUEST_ID, seen.request_id.clone());
        if self.drain.has_begun() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        let status = response.status().as_u16();
        let took = seen.started.elapsed();
        crate::metrics::request(seen.method.as_str(), route, status, took);
        // Probes and heartbeats come every few seconds from several sides: they would hide the rest.
        let quiet = QUIET.iter().any(|quiet| route.starts_with(quiet)) && status < 500;
        let failed = status >= 500 && status != 503;
        if !quiet {
            seen.span.end(Kind::Server, || format!("{} {route}", seen.method), took, status >= 500);
        }
        let level = match (quiet, failed) {
            (true, _) => log::Level::Debug,
            (_, true) => log::Level::Error,
            _ => log::Level::Info,
        };
        log::log!(
            target: "request", level,
            method = seen.method.as_str(), path = seen.path, route, status,
            ms = took.as_secs_f64() * 1000.0, request_id = seen.request_id(), trace_id = seen.span.trace_id();
            "{}", problem.as_ref().map_or("served", Problem::code)
        );
        if let Some(cause) = problem.as_ref().and_then(Problem::cause) {
            log::error!(target: "request", cause, request_id = seen.request_id(); "what went wrong");
        }
        response
    }

    /// Turns every error into a problem document, also those of actix itself.
    fn render(&self, seen: &Seen, response: HttpResponse) -> (HttpResponse, Option<Problem>) {
        let status = response.status();
        if !(status.is_client_error() || status.is_server_error()) {
            return (response, None);
        }
        let known = response.extensions().get::<Problem>().cloned();
        // A handler that wrote its own document, such as a health report, keeps it.
        if known.is_none() && response.headers().contains_key(header::CONTENT_TYPE) && is_json(&response) {
            return (response, None);
        }
        let problem = known.unwrap_or_else(|| Problem::of_status(status));
        let document = problem.document(self.service, seen.request_id(), OffsetDateTime::now_utc());
        let mut response = response.set_body(BoxBody::new(document));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        (response, Some(problem))
    }
}

fn is_json(response: &HttpResponse) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().ends_with(b"json"))
}

/// Gives up when the caller's deadline is past: nobody waits for the answer any more.
pub(super) async fn deadline(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let Some(deadline) = Deadline::from_headers(request.headers()) else { return next.call(request).await };
    match tokio::time::timeout(deadline.remaining(), next.call(request)).await {
        Ok(answered) => answered,
        Err(_) => Err(Problem::of_status(StatusCode::GATEWAY_TIMEOUT).into()),
    }
}

fn is_event_stream(response: &HttpResponse) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// A body that counts as running until it has been sent.
struct Counted {
    body: BoxBody,
    /// The client of an event stream. The stream ends when the client leaves, because a silent one would not notice
    /// for long.
    client: Option<Rc<Exchange>>,
    _in_flight: InFlight,
    _answering: Option<Answering>,
}

impl MessageBody for Counted {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<web::Bytes, Self::Error>>> {
        if self.client.as_ref().is_some_and(|client| client.has_left()) {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_next(context)
    }
}
