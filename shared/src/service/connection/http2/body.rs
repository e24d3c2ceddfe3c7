//! The body of a request. The client may send more when a part was read (back-pressure).

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;
use h2::RecvStream;

use crate::service::connection::pace::Pace;
use crate::service::connection::{ClientLimits, Exchange};

pub(super) struct RequestBody {
    stream: RecvStream,
    exchange: Rc<Exchange>,
    receiving: Pace,
}

impl RequestBody {
    pub(super) fn new(stream: RecvStream, exchange: Rc<Exchange>, limits: ClientLimits) -> Self {
        Self { stream, exchange, receiving: Pace::new(limits.min_rate, limits.grace) }
    }
}

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Poll::Ready(received) = this.stream.poll_data(cx) else {
            ready!(this.receiving.poll_late(cx));
            this.exchange.is_slow.set(true);
            return Poll::Ready(Some(Err(PayloadError::Incomplete(None))));
        };
        let received = received.map(|received| {
            let bytes = received?;
            this.receiving.moved(bytes.len());
            this.stream.flow_control().release_capacity(bytes.len())?;
            Ok(bytes)
        });
        Poll::Ready(received.map(|received| received.map_err(broken)))
    }
}

fn broken(error: h2::Error) -> PayloadError {
    PayloadError::Incomplete(Some(std::io::Error::other(error)))
}
