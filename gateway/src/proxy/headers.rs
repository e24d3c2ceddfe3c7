//! Headers of forwarded requests and responses: drops hop-by-hop headers, and adds those of a proxy.

use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use shared::balancer::Hold;
use shared::service::Exchange;
use shared::stop::Stop;

use crate::concurrency::Place;
use crate::engine::{Response, ResponseBody, UpstreamError};
use crate::routing::Table;

/// Hop-by-hop headers (RFC 9110 §7.6.1), and `Content-Length`, which the engine writes.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "content-length"
    )
}

/// Headers that clients may not set; the gateway sets most of them itself.
fn is_not_from_clients(name: &str) -> bool {
    matches!(
        name,
        "forwarded"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-proto"
            | "x-real-ip"
            | "x-served-by"
            | "via"
            | "expect"
            | "x-message-attempt"
            | "x-request-deadline"
    )
}

/// The gateway's entry in `Via`.
const VIA: &str = "1.1 gateway";

/// The head of a request to a replica, without the headers that differ between attempts, and without `more_dropped`.
pub fn outgoing(
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
    let connection = || request.headers().get_all(header::CONNECTION).map(HeaderValue::as_bytes);
    for (name, value) in request.headers() {
        let name = name.as_str();
        let dropped = is_hop_by_hop(name)
            || is_not_from_clients(name)
            || more_dropped.contains(&name)
            || table.file.strip_headers.iter().any(|stripped| name.eq_ignore_ascii_case(stripped))
            || is_named(name, connection());
        if !dropped {
            line(&mut head, name, value.as_bytes());
        }
    }
    forwarded(&mut head, request, client, table);
    head
}

/// Adds `X-Forwarded-*`, `Forwarded` (RFC 7239) and `Via`. Values in the request are kept and extended only if
/// they come from a trusted proxy.
fn forwarded(head: &mut Vec<u8>, request: &HttpRequest, client: IpAddr, table: &Table) {
    let headers = request.headers();
    let peer = request.peer_addr().map_or(client, |peer| peer.ip());
    let trusted = table.is_trusted(&peer);
    let earlier = |name: &'static str| {
        headers.get_all(name).filter(move |_| trusted).filter_map(|value| value.to_str().ok())
    };
    // A list with one more element.
    let list = |head: &mut Vec<u8>, name: &'static str, last: &[&[u8]]| {
        put(head, &[name.as_bytes(), b": "]);
        earlier(name).for_each(|element| put(head, &[element.as_bytes(), b", "]));
        put(head, last);
        head.extend_from_slice(b"\r\n");
    };
    let peer_text = peer.to_string();
    list(head, "x-forwarded-for", &[peer_text.as_bytes()]);
    match client == peer {
        true => line(head, "x-real-ip", peer_text.as_bytes()),
        false => line(head, "x-real-ip", client.to_string().as_bytes()),
    }
    let proto = earlier("x-forwarded-proto").next().unwrap_or("http");
    line(head, "x-forwarded-proto", proto.as_bytes());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // A request over HTTP/1.0 may have none; the next hop is HTTP/1.1.
    if host.is_none() {
        line(head, "host", b"gateway");
    }
    // The connection has refused hosts with quotes.
    let host = host.unwrap_or("gateway");
    line(head, "x-forwarded-host", host.as_bytes());
    let (open, close): (&[u8], &[u8]) = if peer.is_ipv6() { (b"for=\"[", b"]\"") } else { (b"for=", b"") };
    let node =
        [open, peer_text.as_bytes(), close, b";host=\"", host.as_bytes(), b"\";proto=", proto.as_bytes()];
    list(head, "forwarded", &node);
    list(head, "via", &[VIA.as_bytes()]);
}

/// Whether a value of `Connection` declares the header as hop-by-hop.
fn is_named<'a>(name: &str, connection: impl Iterator<Item = &'a [u8]>) -> bool {
    options(connection).any(|named| named.eq_ignore_ascii_case(name.as_bytes()))
}

/// The options in the values of `Connection`. Bytes, because a value need not be text.
pub fn options<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

pub fn line(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    put(head, &[name.as_bytes(), b": ", value, b"\r\n"]);
}

fn put(head: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| head.extend_from_slice(part));
}

/// The response to the client. The request counts as in flight until the end of the body.
pub fn incoming(answer: Response, hold: Hold, service: &str, client: Client) -> HttpResponse {
    let mut served_by = String::with_capacity(80);
    served_by.extend([service, "/", &hold.instance().id]);
    let mut response = HttpResponse::new(answer.status);
    let headers = response.headers_mut();
    for (name, value) in answer.headers.iter() {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_maybe_shared(value))
        else {
            continue;
        };
        let text = name.as_str();
        let dropped =
            is_hop_by_hop(text) || text == "x-served-by" || is_named(text, answer.headers.all("connection"));
        if !dropped {
            headers.append(name, value);
        }
    }
    headers.append(header::VIA, HeaderValue::from_static(VIA));
    if let Ok(served_by) = HeaderValue::try_from(served_by) {
        headers.insert(HeaderName::from_static("x-served-by"), served_by);
    }
    let hold = Some(hold).filter(|_| !answer.body.is_over());
    let is_stream = answer.is_event_stream();
    let stop = client
        .stop
        .clone()
        .filter(|_| is_stream)
        .map(|stop| async move { stop.requested().await }.boxed_local());
    let Client { exchange, stream, .. } = client;
    let held = Held { body: answer.body, hold, stop, exchange, failed: None, _stream: stream };
    response.set_body(BoxBody::new(held))
}

/// What the body of a response needs to know of its client.
pub struct Client {
    pub exchange: Option<Rc<Exchange>>,
    /// Ends event streams when this gateway drains: their clients reconnect, to another gateway.
    pub stop: Option<Stop>,
    /// The place of an event stream.
    pub stream: Option<Place>,
}

struct Held {
    body: ResponseBody,
    /// Released when the replica has sent everything, before the client receives the last bytes. So the
    /// client's next request does not find the replica busy.
    hold: Option<Hold>,
    stop: Option<LocalBoxFuture<'static, ()>>,
    exchange: Option<Rc<Exchange>>,
    /// The error that ends the body, and the number of flushes before it.
    failed: Option<(UpstreamError, u64)>,
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
                this.hold = None;
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
