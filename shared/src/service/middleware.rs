//! The middleware that every request passes before and after its handler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use actix_web::body::{BodySize, BodyStream, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{self, Accept, Header as _, HeaderName, HeaderValue, Quality};
use actix_web::http::{ConnectionType, Method, StatusCode, Version};
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, HttpResponse, ResponseError as _, web};
use time::OffsetDateTime;
use uuid::Builder;

use super::access_log::{LateLine, Line, LogFields, Seen, Sent, Unanswered};
use super::conditional::unmodified;
use super::connection::{Answering, Exchange, MIN_DIRECT_SIZE, Scheme, prepare_body};
use super::drain::{Drain, InFlight};
use crate::http;
use crate::panics::{Panicked, catch_panic};
use crate::problem::{PROBLEM_JSON, Problem};
use crate::request::is_at_or_below;
use crate::resilience::Deadline;
use crate::trace::{self, Current, Span, SpanKind};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) struct Middleware {
    service: &'static str,
    drain: Drain,
    edge: bool,
    redirect: Option<Arc<Redirect>>,
    hsts: Option<Arc<Hsts>>,
    log_fields: Option<Arc<BeginFields>>,
}

/// The value of `Strict-Transport-Security`.
pub(super) type Hsts = dyn Fn() -> Option<HeaderValue> + Send + Sync;

/// The URL that a request is redirected to.
pub(super) type Redirect = dyn Fn(&HttpRequest) -> Result<Option<String>, Problem> + Send + Sync;

/// Begins to collect the fields of a request; `None` if the log of requests is off.
pub(super) type BeginFields = dyn Fn(&HttpRequest) -> Option<Rc<dyn LogFields>> + Send + Sync;

fn asks_for_websocket(request: &HttpRequest) -> bool {
    let mut protocols = request.headers().get_all(header::UPGRADE).map(HeaderValue::as_bytes);
    protocols.any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

impl Middleware {
    pub(super) fn new(
        service: &'static str,
        drain: Drain,
        edge: bool,
        redirect: Option<Arc<Redirect>>,
        hsts: Option<Arc<Hsts>>,
        log_fields: Option<Arc<BeginFields>>,
    ) -> Self {
        Self { service, drain, edge, redirect, hsts, log_fields }
    }

    /// A response that needs no handler.
    fn early(&self, request: &HttpRequest) -> Option<HttpResponse> {
        // The handlers of an edge refuse it, because a page of another origin must be able to read the response.
        if !self.edge && !is_acceptable(request) {
            return Some(Problem::of_status(StatusCode::NOT_ACCEPTABLE).error_response());
        }
        let redirect = self.redirect.as_ref().filter(|_| !is_at_or_below(request.path(), "/health"))?;
        match redirect(request) {
            Ok(target) => target.map(|target| {
                HttpResponse::PermanentRedirect().insert_header((header::LOCATION, target)).finish()
            }),
            Err(problem) => Some(problem.error_response()),
        }
    }
}

/// Routes that programs ask all the time. A collector that exports to itself would never come to an end.
const QUIET: [&str; 7] =
    ["/health", "/metrics", "/registry", "/openapi.json", "/.well-known", "/v1/traces", "/v1/logs"];

/// Gives a request its id and trace, renders errors, and writes the log.
pub(super) fn middleware(
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> impl Future<Output = Result<ServiceResponse<impl MessageBody>, Error>> {
    let middleware = request.app_data::<web::Data<Middleware>>().cloned();
    let seen = see(&mut request, middleware.as_ref().is_some_and(|middleware| middleware.edge));
    seen.current.clone().scope(serve(middleware, request, next, seen))
}

async fn serve(
    middleware: Option<web::Data<Middleware>>,
    mut request: ServiceRequest,
    next: Next<BoxBody>,
    mut seen: Seen,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let Some(middleware) = middleware else { return Err(Problem::internal().into()) };
    let (in_flight, current) = (middleware.drain.enter(), seen.current.clone());
    let is_old = request.version() == Version::HTTP_10;
    let exchange = Exchange::of(request.request());
    exchange.iter().for_each(|exchange| prepare_body(&mut request, exchange));
    let answering = exchange.clone().map(Exchange::answering);
    let deadline = if middleware.edge { None } else { Deadline::from_headers(request.headers()) };
    let fields = middleware.log_fields.as_ref().and_then(|begin| begin(request.request()));
    let unanswered = Unanswered::new(&seen, exchange.as_deref(), fields.as_deref());
    let answered = match (middleware.early(request.request()), deadline) {
        (Some(response), _) => Ok(request.into_response(response)),
        (None, None) => internal_error_on_panic(async { next.call(request).await }).await,
        // After its caller's deadline nobody waits for the response any more.
        (None, Some(deadline)) => {
            let answering = internal_error_on_panic(async { next.call(request).await });
            tokio::time::timeout(deadline.remaining(), answering)
                .await
                .unwrap_or_else(|_| Err(Problem::of_status(StatusCode::GATEWAY_TIMEOUT).into()))
        }
    };
    unanswered.answered();
    seen.is_last |= exchange.as_ref().is_some_and(|exchange| exchange.begin_response());
    // The handler has seen a body that breaks off.
    let is_slow = exchange.as_ref().is_some_and(|exchange| exchange.is_slow());
    let late = is_slow.then(|| Problem::of_status(StatusCode::REQUEST_TIMEOUT).error_response());
    match answered {
        Ok(answered) => {
            let (request, response) = answered.into_parts();
            // A response to a part of the body may be a good one.
            let is_error = response.status().is_client_error() || response.status().is_server_error();
            let response = match late.filter(|_| is_error) {
                Some(late) => with_headers_for_pages(late, &response),
                None => response,
            };
            // What the gateway forwards was answered by a service that has looked at the condition.
            let response = if middleware.edge { response } else { unmodified(&request, response) };
            let label = exchange.as_ref().and_then(|exchange| exchange.take_label());
            let pattern = if label.is_none() { request.match_pattern() } else { None };
            let route = label.as_deref().or(pattern.as_deref()).unwrap_or("-");
            let (mut response, line) = middleware.finish(&mut seen, route, response);
            let late_line = match (line, fields) {
                (Some(line), Some(fields)) => {
                    Some(Box::new(LateLine::new(line, seen, route, response.body().size(), fields)))
                }
                (line, _) => {
                    line.iter().for_each(|line| line.write(&seen, route, &[]));
                    None
                }
            };
            // HTTP/1.0 has no chunks, and actix sends none after a request for a WebSocket: the end of the connection is
            // the end of the body.
            if matches!(response.body().size(), BodySize::Stream)
                && response.status() != StatusCode::SWITCHING_PROTOCOLS
                && (is_old || asks_for_websocket(&request))
            {
                response.head_mut().no_chunking(true);
                response.head_mut().set_connection_type(ConnectionType::Close);
            }
            let length = direct_length(&request, &response);
            let direct = exchange.clone().zip(length).filter(|(exchange, _)| exchange.can_send_directly());
            let client = exchange.filter(|_| is_event_stream(&response));
            let mut response = ServiceResponse::new(request, response).map_body(|_, body| {
                BoxBody::new(Counted {
                    body,
                    client,
                    line: late_line,
                    current,
                    _in_flight: in_flight,
                    _answering: answering,
                })
            });
            if let Some((exchange, length)) = direct {
                response.headers_mut().remove(header::TRANSFER_ENCODING);
                response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                response.response_mut().head_mut().no_chunking(true);
                response = response.map_body(|_, body| {
                    exchange.send_directly(body, length);
                    BoxBody::new(BodyStream::new(futures_util::stream::empty::<Result<_, Error>>()))
                });
            }
            Ok(response)
        }
        Err(error) => {
            let response = late.unwrap_or_else(|| error.error_response());
            let label = exchange.as_ref().and_then(|exchange| exchange.take_label());
            let route = label.as_deref().unwrap_or("-");
            let (response, line) = middleware.finish(&mut seen, route, response);
            if let Some(line) = line {
                let sent = Sent::whole(response.body().size());
                let fields = fields.map(|fields| fields.fields(sent, line.problem.as_ref()));
                line.write(&seen, route, &fields.unwrap_or_default());
            }
            Err(InternalError::from_response(error, response).into())
        }
    }
}

/// `late`, with the headers of the response in whose place it is sent that tell a page of another origin whether it may
/// read it, and those of the rate limit.
fn with_headers_for_pages(mut late: HttpResponse, response: &HttpResponse<BoxBody>) -> HttpResponse {
    let is_kept = |name: &HeaderName| {
        let text = name.as_str();
        name == header::VARY || text.starts_with("access-control-") || text.starts_with("ratelimit")
    };
    for (name, value) in response.headers().iter().filter(|(name, _)| is_kept(name)) {
        late.headers_mut().append(name.clone(), value.clone());
    }
    late
}

/// A handler that panics must not end the task of its connection: the client would get no response, the log no line, and
/// over HTTP/2, all other requests of the connection would end with it.
async fn internal_error_on_panic(
    answering: impl Future<Output = Result<ServiceResponse<BoxBody>, Error>>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let answered = catch_panic(answering).await;
    answered.unwrap_or_else(|panicked| Err(Problem::internal().because(&panicked).into()))
}

/// Gives the request its id and trace.
fn see(request: &mut ServiceRequest, edge: bool) -> Seen {
    let scheme = Scheme::of(request.request());
    let is_last = Exchange::of(request.request()).is_some_and(|exchange| exchange.is_last());
    let headers = request.headers_mut();
    let given = headers.get(REQUEST_ID).filter(|id| is_request_id(id)).cloned();
    let request_id = given.unwrap_or_else(new_request_id);
    // This replaces all others, which nobody has checked.
    headers.insert(REQUEST_ID, request_id.clone());
    let parent = trace::from_headers(headers);
    let parent = if edge { parent.as_ref().map(trace::resampled) } else { parent };
    let is_quiet = is_quiet(request.path());
    let span = match is_quiet {
        true => Span::unrecorded(parent),
        false => Span::below(parent.as_ref(), SpanKind::Server, "HTTP"),
    };
    let current = Current::new(Some(request_id.clone()), span.context().clone());
    Seen {
        started: Instant::now(),
        method: request.method().clone(),
        path: request.path().to_owned(),
        request_id,
        scheme,
        is_quiet,
        is_last,
        span,
        current,
    }
}

/// Whether `path` is one of [`QUIET`] or below it. `/health` is; `/healthy-food` is another route.
pub(super) fn is_quiet(path: &str) -> bool {
    QUIET.into_iter().any(|quiet| is_at_or_below(path, quiet))
}

/// Whether a client's id is taken over.
fn is_request_id(id: &HeaderValue) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(allowed)
}

fn new_request_id() -> HeaderValue {
    let mut text = [0; 36];
    // A version 7 without the counter that `now_v7` shares between threads: nobody sorts these ids.
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let id = Builder::from_unix_timestamp_millis(u64::try_from(millis).unwrap_or_default(), &rand::random());
    let id: &str = id.into_uuid().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Whether the client takes JSON, or the event stream that some resources have; if not, it gets 406.
pub fn is_acceptable(request: &HttpRequest) -> bool {
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
    /// Renders and counts the response. `None` if its line is not logged.
    fn finish(
        &self,
        seen: &mut Seen,
        route: &str,
        response: HttpResponse<BoxBody>,
    ) -> (HttpResponse<BoxBody>, Option<Line>) {
        let (mut response, problem) = self.render(seen, response);
        response.headers_mut().insert(REQUEST_ID, seen.request_id.clone());
        // Browsers ignore it in a response without TLS (RFC 6797 §7.2).
        let hsts = self.hsts.as_ref().filter(|_| seen.scheme == Scheme::Https).and_then(|hsts| hsts());
        if let Some(hsts) = hsts {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts);
        }
        // actix says nothing after a request to change the protocol, and reads no `Connection` that is not ASCII. A 101
        // says `Connection: Upgrade`, and its handler ends the tunnel.
        let is_last = seen.is_last || self.drain.has_begun();
        if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        let status = response.status().as_u16();
        let took = seen.started.elapsed();
        crate::metrics::request(seen.method.as_str(), route, status, took);
        // Probes and heartbeats come every few seconds from several sides: they would hide the rest.
        let quiet = is_quiet(route) && status < 400;
        let failed = status >= 500 && status != 503;
        let Seen { span, method, path, .. } = seen;
        span.record(|span| {
            span.request(method.as_str(), Some(route));
            span.set("http.route", route.to_owned());
            span.set("url.path", path.clone());
            span.set("http.response.status_code", i64::from(status));
            if status >= 500 {
                span.fail(status.to_string());
            }
        });
        let level = match (quiet, failed) {
            (true, _) => log::Level::Debug,
            (_, true) => log::Level::Error,
            _ => log::Level::Info,
        };
        if let Some(cause) = problem.as_ref().and_then(Problem::cause) {
            log::error!(target: "request", error = cause; "what went wrong");
        }
        let is_logged = log::log_enabled!(target: "request", level);
        (response, is_logged.then_some(Line { level, status: Some(status), problem }))
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

fn is_event_stream(response: &HttpResponse) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| http::is_event_stream(kind.as_bytes()))
}

/// The length of a body that the connection may write itself.
fn direct_length(request: &HttpRequest, response: &HttpResponse) -> Option<u64> {
    let BodySize::Sized(length) = response.body().size() else { return None };
    let status = response.status();
    let has_body = request.method() != Method::HEAD
        && !(status.is_informational()
            || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status));
    Some(length).filter(|length| has_body && *length >= MIN_DIRECT_SIZE)
}

/// A body that counts as running until it has been sent.
struct Counted {
    body: BoxBody,
    /// The client of an event stream. The stream ends when the client leaves, because a silent one would not notice
    /// for long.
    client: Option<Rc<Exchange>>,
    /// Boxed, because the body moves several times before it is sent.
    line: Option<Box<LateLine>>,
    /// The context of the request.
    current: Current,
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
        // As for a handler: the connection may have other requests.
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.body).poll_next(context)));
        let polled = polled.unwrap_or_else(|panic| {
            let panicked = Panicked::of(&*panic);
            self.current
                .clone()
                .sync_scope(|| log::error!(error:% = panicked; "the body of a response broke off"));
            Poll::Ready(Some(Err(panicked.into())))
        });
        if let (Poll::Ready(part), Some(line)) = (&polled, &mut self.line) {
            line.count(part.as_ref());
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_quiet_routes_and_what_is_below_them_are_quiet_and_no_route_with_a_similar_name() {
        for quiet in ["/health", "/health/ready", "/metrics", "/registry/a/b", "/.well-known/jwks.json"] {
            assert!(is_quiet(quiet), "{quiet}");
        }
        for other in
            ["/healthy-food", "/metrics-shop", "/registry-office/1", "/v1/traceset", "/api/health", "/"]
        {
            assert!(!is_quiet(other), "{other}");
        }
    }
}
