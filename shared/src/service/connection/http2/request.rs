//! A request as actix has it from HTTP/1.1, so that everything behind it reads one form: the authority is in `Host`,
//! there is one `Cookie`, and a body without a length is `chunked`.

use std::net::SocketAddr;
use std::rc::Rc;

use ::http::request::Parts;
use actix_http::{BoxedPayloadStream, HttpMessage as _, Payload, Request};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode, Uri, Version};
use h2::RecvStream;

use super::body::RequestBody;
use crate::problem::Problem;
use crate::service::connection::head::{MAX_HEADERS, is_host};
use crate::service::connection::{ClientLimits, Exchange, Scheme};

pub(super) fn of(
    request: ::http::Request<RecvStream>,
    peer: SocketAddr,
    limits: ClientLimits,
) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    let has_body = !body.is_end_stream();
    let headers = headers(&parts, has_body)?;
    let target = parts.uri.path_and_query().and_then(|target| Uri::try_from(target.as_str()).ok());
    let method = Method::from_bytes(parts.method.as_str().as_bytes()).ok();
    let (Some(uri), Some(method)) = (target, method) else {
        return Err(Problem::malformed("The request has no path."));
    };
    let exchange = Rc::new(Exchange::of_stream(Scheme::Https));
    let payload = match has_body {
        true => {
            let body: BoxedPayloadStream = Box::pin(RequestBody::new(body, exchange.clone(), limits));
            Payload::from(body)
        }
        false => Payload::None,
    };
    let mut request = Request::with_payload(payload);
    let head = request.head_mut();
    (head.method, head.uri, head.version) = (method, uri, Version::HTTP_2);
    (head.headers, head.peer_addr) = (headers, Some(peer));
    request.extensions_mut().insert(exchange);
    Ok(request)
}

fn headers(parts: &Parts, has_body: bool) -> Result<HeaderMap, Problem> {
    if parts.headers.len() > MAX_HEADERS {
        return Err(Problem::of_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    let mut headers = HeaderMap::with_capacity(parts.headers.len() + 2);
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        match *name {
            ::http::header::HOST => {}
            // RFC 9113 §8.2.3: clients send them in pieces.
            ::http::header::COOKIE => cookies.push(value.as_bytes()),
            _ => headers
                .append(HeaderName::from_bytes(name.as_ref()).map_err(unreadable)?, copy(value.as_bytes())?),
        }
    }
    if !cookies.is_empty() {
        headers.insert(header::COOKIE, copy(&cookies.join(&b"; "[..]))?);
    }
    headers.insert(header::HOST, copy(host(parts)?)?);
    // The body ends with the stream.
    if has_body && !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(headers)
}

/// The authority, or `Host` if there is none. If there are both, they must be equal (RFC 9113 §8.3.1).
fn host(parts: &Parts) -> Result<&[u8], Problem> {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts =
        parts.headers.get_all(::http::header::HOST).iter().map(|host| host.as_bytes()).chain(authority);
    let Some(host) = hosts.next_back() else { return Err(Problem::malformed("The authority is missing.")) };
    if !hosts.all(|other| other.eq_ignore_ascii_case(host)) {
        return Err(Problem::malformed("The authority and the Host header differ."));
    }
    if !is_host(host) {
        return Err(Problem::malformed("The authority is malformed."));
    }
    Ok(host)
}

fn copy(value: &[u8]) -> Result<HeaderValue, Problem> {
    HeaderValue::from_bytes(value).map_err(unreadable)
}

fn unreadable<E>(_: E) -> Problem {
    Problem::malformed("A header is malformed.")
}
