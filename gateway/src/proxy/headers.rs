//! Headers of forwarded requests and responses: drops hop-by-hop headers, and adds those of a proxy.

use std::borrow::Cow;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Version};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use shared::balancer::PickedReplica;
use shared::client::ATTEMPT_HEADER;
use shared::request::connection_options;
use shared::resilience::Deadline;
use shared::service::Exchange;
use shared::stop::Stop;

use crate::access_log::AccessLog;
use crate::address::{self, peer_address, scheme, text_of};
use crate::concurrency::Place;
use crate::engine::{Response, ResponseBody, Tunnel, UpstreamError};
use crate::routing::Table;

/// Hop-by-hop headers (RFC 9110 §7.6.1), and `Content-Length`, which the engine writes.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "content-length",
];

/// Marks a copy of a request for a mirror. Clients cannot set it.
pub const MIRRORED: &str = "x-mirrored";
/// Headers of a request that are not copied, beside those of [`FORWARDED`]: the gateway writes them itself, or leaves
/// them out. Some frameworks take the URL of a request from `x-original-url` and its like.
const NOT_FROM_CLIENTS: [&str; 15] = [
    "forwarded",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "x-real-ip",
    "x-served-by",
    "via",
    "expect",
    "x-message-attempt",
    ATTEMPT_HEADER,
    Deadline::NAME,
    MIRRORED,
    "x-request-deadline",
    "traceparent",
    "tracestate",
];

/// How the headers of proxies begin: `X-Forwarded-Port`, `X-Forwarded-Prefix` and so on.
const FORWARDED: &str = "x-forwarded-";

const VIA: &str = "1.1 gateway";

/// The head of a request to a replica, without the headers that differ between attempts, and without `more_dropped`.
pub fn request_head(
    request: &HttpRequest,
    path: &str,
    client: IpAddr,
    table: &Table,
    more_dropped: &[&str],
) -> Vec<u8> {
    let mut head = Vec::with_capacity(1024);
    let query = request.uri().query();
    put(&mut head, &[request.method().as_str().as_bytes(), b" ", path.as_bytes()]);
    if let Some(query) = query {
        put(&mut head, &[b"?", query.as_bytes()]);
    }
    head.extend_from_slice(b" HTTP/1.1\r\n");
    let connection: Vec<_> = connection_options(request.headers()).collect();
    for (name, value) in request.headers() {
        let dropped = is_changed(name, table)
            || more_dropped.contains(&name.as_str())
            || is_one_of(name.as_str().as_bytes(), &connection);
        if !dropped {
            line(&mut head, name.as_str(), value.as_bytes());
        }
    }
    forwarded(&mut head, request, client, table);
    head
}

/// Whether the gateway removes this header of a client, or sets it itself.
pub fn is_changed(name: &HeaderName, table: &Table) -> bool {
    name.as_str().starts_with(FORWARDED)
        || HOP_BY_HOP.iter().chain(&NOT_FROM_CLIENTS).any(|drop| *drop == name.as_str())
        || table.config.strip_headers.iter().any(|stripped| name.as_str().eq_ignore_ascii_case(stripped))
}

/// Adds `X-Forwarded-*`, `Forwarded` (RFC 7239) and `Via`. Values in the request are kept and extended only if
/// they come from a trusted proxy.
fn forwarded(head: &mut Vec<u8>, request: &HttpRequest, client: IpAddr, table: &Table) {
    let headers = request.headers();
    let peer = peer_address(request);
    let trusted = table.is_trusted(&peer);
    let earlier = |name: &HeaderName| {
        let values = trusted.then(|| headers.get_all(name));
        values.into_iter().flatten().filter_map(|value| value.to_str().ok())
    };
    // Begins a list with the earlier elements.
    let list = |head: &mut Vec<u8>, name: &HeaderName| {
        put(head, &[name.as_str().as_bytes(), b": "]);
        earlier(name).for_each(|element| put(head, &[element.as_bytes(), b", "]));
    };
    let peer_text = text_of(peer);
    let real = if client == peer { Cow::from(&peer_text) } else { Cow::from(text_of(client)) };
    let proto = scheme(request, table).as_str().as_bytes();
    let host = address::host(request);
    // An HTTP/1.0 request may have no Host, but HTTP/1.1, which the next hop uses, requires one.
    if host.is_none() {
        line(head, "host", b"gateway");
    }
    // The host has no quotes: the connection has refused such requests.
    let host = host.unwrap_or("gateway").as_bytes();
    list(head, &header::X_FORWARDED_FOR);
    put(head, &[peer_text.as_bytes(), b"\r\nx-real-ip: ", real.as_bytes()]);
    put(head, &[b"\r\nx-forwarded-proto: ", proto, b"\r\nx-forwarded-host: ", host, b"\r\n"]);
    let (open, close): (&[u8], &[u8]) = if peer.is_ipv6() { (b"for=\"[", b"]\"") } else { (b"for=", b"") };
    list(head, &header::FORWARDED);
    put(head, &[open, peer_text.as_bytes(), close, b";host=\"", host, b"\";proto=", proto, b"\r\n"]);
    list(head, &header::VIA);
    let via = if request.version() == Version::HTTP_2 { "2 gateway" } else { VIA };
    put(head, &[via.as_bytes(), b"\r\n"]);
}

fn is_one_of(name: &[u8], names: &[impl AsRef<[u8]>]) -> bool {
    names.iter().any(|one| name.eq_ignore_ascii_case(one.as_ref()))
}

pub fn line(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    put(head, &[name.as_bytes(), b": ", value, b"\r\n"]);
}

fn put(head: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| head.extend_from_slice(part));
}

/// Asks the replica for a WebSocket.
pub fn upgrade(head: &mut Vec<u8>) {
    line(head, "connection", b"upgrade");
    line(head, "upgrade", b"websocket");
}

/// The response to the client, without its body.
pub fn response_head(answer: &Response, picked: &PickedReplica, service: &str) -> HttpResponse {
    let served_by = [service, "/", &picked.instance().id].concat();
    let mut response = HttpResponse::new(answer.status);
    let headers = response.headers_mut();
    let kept = |name: &[u8]| !(is_one_of(name, &HOP_BY_HOP) || name.eq_ignore_ascii_case(b"x-served-by"));
    for (name, value) in answer.headers.filtered(kept) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_maybe_shared(value)) {
            headers.append(name, value);
        }
    }
    headers.append(header::VIA, HeaderValue::from_static(VIA));
    if let Ok(served_by) = HeaderValue::try_from(served_by) {
        headers.insert(HeaderName::from_static("x-served-by"), served_by);
    }
    response
}

/// The response to the client. The request counts as in flight until the end of the body.
pub fn response(answer: Response, picked: PickedReplica, service: &str, client: Client) -> HttpResponse {
    let response = response_head(&answer, &picked, service);
    let picked = (!answer.body.is_over()).then_some(picked);
    let Client { exchange, stop, stream, log } = client;
    let stop = stop.map(|stop| async move { stop.requested().await }.boxed_local());
    let held = Held { body: answer.body, picked, stop, exchange, failed: None, log, _stream: stream };
    response.set_body(BoxBody::new(held))
}

/// The 101 that a replica has answered with. `make` makes the tunnel.
pub fn switched(
    answer: Response,
    picked: PickedReplica,
    service: &str,
    place: Place,
    make: impl FnOnce(Response) -> Option<Tunnel>,
) -> Option<HttpResponse> {
    let mut response = response_head(&answer, &picked, service);
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response.head_mut().set_connection_type(ConnectionType::Upgrade);
    let tunnel = make(answer)?;
    Some(response.set_body(BoxBody::new(Switched { tunnel, _picked: picked, _place: place })))
}

struct Switched {
    tunnel: Tunnel,
    _picked: PickedReplica,
    /// The stream's place in the client's limit.
    _place: Place,
}

impl MessageBody for Switched {
    type Error = UpstreamError;

    fn size(&self) -> BodySize {
        self.tunnel.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        Pin::new(&mut self.tunnel).poll_next(cx)
    }
}

/// The parts of the client's connection that the body of a response needs.
pub struct Client {
    pub exchange: Option<Rc<Exchange>>,
    /// Ends event streams when this gateway drains. Their clients then reconnect to another gateway.
    pub stop: Option<Stop>,
    /// The place of an event stream.
    pub stream: Option<Place>,
    pub log: Option<Rc<AccessLog>>,
}

struct Held {
    body: ResponseBody,
    /// Released when the replica has sent the whole response, before the client receives the last bytes. So at the
    /// client's next request, the replica does not count as busy.
    picked: Option<PickedReplica>,
    stop: Option<LocalBoxFuture<'static, ()>>,
    exchange: Option<Rc<Exchange>>,
    /// The error that ends the body, and the number of flushes before it. The error waits until the bytes before it
    /// have reached the client, because actix discards encoded bytes when a body fails.
    failed: Option<(UpstreamError, u64)>,
    log: Option<Rc<AccessLog>>,
    _stream: Option<Place>,
}

impl MessageBody for Held {
    type Error = UpstreamError;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let this = &mut *self;
        if this.failed.is_none() {
            if this.stop.as_mut().is_some_and(|stop| stop.poll_unpin(cx).is_ready()) {
                return Poll::Ready(None);
            }
            let polled = ready!(Pin::new(&mut this.body).poll_next(cx));
            if this.body.is_over() {
                this.picked = None;
            }
            if let (Some(Err(error)), Some(log)) = (&polled, &this.log) {
                log.body_broke(error);
            }
            match (polled, &this.exchange) {
                (Some(Err(error)), Some(exchange)) => this.failed = Some((error, exchange.flushes())),
                (polled, _) => return Poll::Ready(polled),
            }
        }
        if let (Some((_, mark)), Some(exchange)) = (&this.failed, &this.exchange) {
            ready!(exchange.poll_flushed(*mark));
        }
        Poll::Ready(this.failed.take().map(|(error, _)| Err(error)))
    }
}
