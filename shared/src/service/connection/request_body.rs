//! The body of a request. The handler reads it from the connection, and actix never sees it: actix gets a head that says
//! that there is no body, and the middleware puts the true line back.
//!
//! Little is read before the handler asks for it. A client that sends `Expect: 100-continue` (RFC 9110 §10.1.1) gets a 100
//! when the handler begins to read. If the handler refuses the request before, the client need not send the body.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::HttpMessage as _;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Bytes;
use futures_util::Stream;

use super::Exchange;
use crate::request::has_body;

/// What the client said of the body in the head.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announced {
    #[default]
    Nothing,
    Length(u64),
    Chunks,
}

/// The connection, as the body of its current request.
pub(super) trait BodySource {
    /// The next part; `None` at the end. The task of the connection must call it.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>>;

    /// Ends the request: nobody will read the rest of its body. Returns whether all of it has arrived.
    fn abandon_body(&mut self) -> bool;
}

/// The body, for a handler.
struct RequestBody {
    /// With HTTP/2, a stream of its own has the body.
    stream: Option<Payload>,
    exchange: Rc<Exchange>,
    /// The number of the request on its connection.
    number: u64,
}

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.exchange.ask_for_body();
        if let Some(stream) = &mut self.stream {
            return Pin::new(stream).poll_next(cx);
        }
        // The connection may poll this itself, as a part of the response.
        if self.exchange.is_request_over.get() || self.exchange.number.get() != self.number {
            return Poll::Ready(None);
        }
        match self.exchange.source() {
            Some(source) => source.borrow_mut().poll_body(cx),
            None => Poll::Ready(Some(Err(PayloadError::Incomplete(None)))),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.exchange.number.get() == self.number {
            self.exchange.has_reader.set(false);
        }
    }
}

/// Gives `request` its body. A client that waits for a 100 gets none before the handler reads the body.
pub(in crate::service) fn prepare(request: &mut ServiceRequest, exchange: &Rc<Exchange>) {
    let expects = match exchange.is_multiplexed {
        true => request.headers().contains_key(header::EXPECT),
        false => request.head().expect(),
    };
    exchange.drops_continue.set(expects);
    match exchange.announced.take() {
        Announced::Nothing => {}
        Announced::Length(length) => {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        Announced::Chunks => {
            request.headers_mut().remove(header::CONTENT_LENGTH);
            request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    if !has_body(request.request()) {
        return;
    }
    exchange.awaits_continue.set(expects);
    exchange.has_reader.set(true);
    let stream = exchange.is_multiplexed.then(|| request.take_payload());
    let body = RequestBody { stream, exchange: exchange.clone(), number: exchange.number.get() };
    request.set_payload(Payload::Stream { payload: Box::pin(body) });
}
