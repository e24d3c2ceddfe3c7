//! `Expect: 100-continue` (RFC 9110 §10.1.1): the client gets a 100 when a handler begins to read the body. If the handler
//! refuses the request before, the client need not send the body.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::HttpMessage as _;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::http::{Version, header};
use actix_web::web::Bytes;
use futures_util::Stream;

use super::Exchange;
use crate::request::has_body;

/// actix sends it before it calls a handler. The connection drops that one.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Asks for the body when it is read.
struct Expected {
    body: Payload,
    exchange: Rc<Exchange>,
}

impl Stream for Expected {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.exchange.ask_for_body();
        Pin::new(&mut self.body).poll_next(cx)
    }
}

/// If the client of `request` waits for a 100, it gets none before the body is read.
pub(in crate::service) fn prepare(request: &mut ServiceRequest, exchange: &Rc<Exchange>) {
    let expects = match request.version() {
        Version::HTTP_2 => request.headers().contains_key(header::EXPECT),
        _ => request.head().expect(),
    };
    if !expects {
        return;
    }
    exchange.drops_continue.set(true);
    if has_body(request.request()) {
        exchange.awaits_continue.set(true);
        let expected = Expected { body: request.take_payload(), exchange: exchange.clone() };
        request.set_payload(Payload::Stream { payload: Box::pin(expected) });
    }
}
