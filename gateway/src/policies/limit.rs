//! The longest body of a request that a route takes.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, dev};
use futures_util::Stream;
use shared::problem::Problem;

/// Whether a body was longer than it may be.
#[derive(Debug, Clone, Default)]
pub struct Exceeded(Rc<Cell<bool>>);

impl Exceeded {
    pub fn get(&self) -> bool {
        self.0.get()
    }
}

/// 413 for a body that says that it is longer than `max` bytes. One that does not say its length breaks off there.
pub fn limited(
    request: &HttpRequest,
    payload: dev::Payload,
    max: u64,
) -> Result<(dev::Payload, Exceeded), Problem> {
    let length = request.headers().get("content-length").and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > max) {
        return Err(too_large(max));
    }
    let exceeded = Exceeded::default();
    let limited = Limited { payload, left: max, exceeded: exceeded.clone() };
    Ok((dev::Payload::Stream { payload: Box::pin(limited) }, exceeded))
}

pub fn too_large(max: u64) -> Problem {
    Problem::new(
        shared::problem::codes::BODY_TOO_LARGE,
        format!("The body is too large: {} KiB are allowed here.", max / 1024),
    )
}

struct Limited {
    payload: dev::Payload,
    left: u64,
    exceeded: Exceeded,
}

impl Stream for Limited {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let part = ready!(Pin::new(&mut self.payload).poll_next(cx));
        let Some(Ok(bytes)) = &part else { return Poll::Ready(part) };
        match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => {
                self.left = left;
                Poll::Ready(part)
            }
            None => {
                self.exceeded.0.set(true);
                Poll::Ready(Some(Err(PayloadError::Overflow)))
            }
        }
    }
}
