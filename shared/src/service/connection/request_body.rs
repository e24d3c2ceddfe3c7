//! The body of a request, on its way from actix to the handler.
//!
//! The connection reads at least [`MAX_UNREAD`] bytes ahead of the handler, as far as they have arrived, and then waits until
//! the handler has finished with them all; actix alone would read 128 KiB. A client that sends
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

/// When actix has this many bytes of a body with which the handler has not finished, the connection reads no more. actix's
/// buffer, which doubles from 8 or 9 KiB, then has 32 or 36 KiB, or twice that if it was filled in several parts. With
/// three quarters of this, a large body took up to twice the processor time. With twice as much, the buffer grows to
/// 144 KiB, which glibc returns to the kernel after each request.
pub(super) const MAX_UNREAD: usize = 24 * 1024;
/// actix moves its buffer to a larger one before it reads, if there is less space than this.
pub(super) const SPARE: usize = 1024;

/// Tells the connection what the handler reads.
struct RequestBody {
    body: Payload,
    exchange: Rc<Exchange>,
    /// The number of the request on its connection.
    number: u64,
    /// Bytes of the part that the handler is working on.
    taken: usize,
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
        let taken = std::mem::take(&mut self.taken);
        if let Some(exchange) = self.exchange() {
            exchange.ask_for_body();
            exchange.has_read(taken);
        }
        let polled = Pin::new(&mut self.body).poll_next(cx);
        match &polled {
            Poll::Ready(Some(Ok(bytes))) => self.taken = bytes.len(),
            Poll::Ready(None) => {
                if let Some(exchange) = self.exchange() {
                    exchange.is_request_over.set(true);
                }
            }
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
    let body = RequestBody { body: request.take_payload(), exchange, number, taken: 0 };
    request.set_payload(Payload::Stream { payload: Box::pin(body) });
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn the_part_that_a_handler_works_on_counts_as_unread_until_it_asks_for_the_next() {
        let exchange = Rc::new(Exchange::default());
        exchange.unread.set(Some(0));
        exchange.will_read(MAX_UNREAD);
        let part: Result<_, PayloadError> = Ok(Bytes::from(vec![b'x'; MAX_UNREAD]));
        let body: Payload = Payload::Stream { payload: Box::pin(futures_util::stream::iter([part])) };
        let mut body = RequestBody { body, exchange: exchange.clone(), number: 0, taken: 0 };
        let mut next = async || poll_fn(|cx| Pin::new(&mut body).poll_next(cx)).await;
        assert_eq!(next().await.unwrap().unwrap().len(), MAX_UNREAD);
        assert!(exchange.is_ahead.get());
        assert!(next().await.is_none() && !exchange.is_ahead.get());
    }
}
