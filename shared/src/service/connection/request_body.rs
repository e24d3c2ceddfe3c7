//! The body of a request, on its way from actix to the handler.
//!
//! The connection reads about [`MAX_UNREAD`] bytes ahead of the handler; actix alone would read 128 KiB. A client that sends
//! `Expect: 100-continue` (RFC 9110 §10.1.1) gets a 100 when the handler begins to read. If the handler refuses the request
//! before, the client need not send the body.

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

/// When actix has this many bytes of a body that the handler has not read, the connection reads no more. This is a little
/// less than 64 KiB, to which actix's buffer grows.
pub(super) const MAX_UNREAD: usize = 60 * 1024;
/// actix moves its buffer to a larger one before it reads, if there is less space than this.
pub(super) const SPARE: usize = 1024;

/// Tells the connection what the handler reads.
struct RequestBody {
    body: Payload,
    exchange: Rc<Exchange>,
    /// The number of the request on its connection.
    number: u64,
}

impl RequestBody {
    /// `None` if the connection has begun with the next request.
    fn exchange(&self) -> Option<&Exchange> {
        Some(&*self.exchange).filter(|exchange| exchange.number.get() == self.number)
    }
}

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(exchange) = self.exchange() {
            exchange.ask_for_body();
        }
        let polled = Pin::new(&mut self.body).poll_next(cx);
        match (&polled, self.exchange()) {
            (Poll::Ready(Some(Ok(bytes))), Some(exchange)) => exchange.has_read(bytes.len()),
            (Poll::Ready(None), Some(exchange)) => exchange.is_request_over.set(true),
            _ => {}
        }
        polled
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange() {
            exchange.discard_body();
        }
    }
}

/// Bounds how far `request` is read ahead of its handler. A client that waits for a 100 gets none before the handler reads
/// the body.
pub(in crate::service) fn prepare(request: &mut ServiceRequest, exchange: &Rc<Exchange>) {
    let expects = match request.version() {
        Version::HTTP_2 => request.headers().contains_key(header::EXPECT),
        _ => request.head().expect(),
    };
    exchange.drops_continue.set(expects);
    if !has_body(request.request()) {
        return;
    }
    exchange.awaits_continue.set(expects);
    let (exchange, number) = (exchange.clone(), exchange.number.get());
    let body = RequestBody { body: request.take_payload(), exchange, number };
    request.set_payload(Payload::Stream { payload: Box::pin(body) });
}
