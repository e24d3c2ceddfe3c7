//! A large body of a response, which the connection writes to the socket itself. actix would first copy it into a buffer
//! of its own, which grows to 128 KiB.
//!
//! actix gets a response whose body ends immediately. What it then writes is the head, which waits here for the first part
//! of the body. actix can continue when the body is written, because until then its flush is pending.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BoxBody, MessageBody as _};
use actix_web::web::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::pace::Pace;

/// Smaller bodies are not worth it.
pub(in crate::service) const MIN_SIZE: u64 = 8 * 1024;

#[derive(Debug)]
pub(super) struct DirectBody {
    body: BoxBody,
    /// The number of bytes that `body` still has, by its `Content-Length`.
    left: u64,
    /// What is written before `part`: the head.
    head: BytesMut,
    part: Bytes,
    /// The head is complete, and is being written.
    has_begun: bool,
    /// The body has failed. The connection ends when everything before is written.
    failure: Option<io::Error>,
}

enum Next {
    Part,
    End,
    /// There is no part now, or never if the body has failed.
    Pending,
}

impl DirectBody {
    pub(super) fn new(body: BoxBody, length: u64) -> Self {
        let (head, part) = (BytesMut::new(), Bytes::new());
        Self { body, left: length, head, part, has_begun: false, failure: None }
    }

    /// Where the head goes that actix writes. `None` when it is complete.
    pub(super) fn open_head(&mut self) -> Option<&mut BytesMut> {
        (!self.has_begun).then_some(&mut self.head)
    }

    /// Writes without blocking; ready at the end of the body, and with an error if the body fails or the client is slower
    /// than `pace` allows.
    pub(super) fn poll(
        &mut self,
        mut io: Pin<&mut (impl AsyncWrite + ?Sized)>,
        pace: &mut Pace,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.has_begun = true;
        loop {
            let mut next = Next::Part;
            if self.part.is_empty() {
                // The body may read this part into the memory of the last one.
                self.part = Bytes::new();
                next = self.poll_part(cx);
            }
            while !(self.head.is_empty() && self.part.is_empty()) {
                let parts = [IoSlice::new(&self.head), IoSlice::new(&self.part)];
                let Poll::Ready(written) = io.as_mut().poll_write_vectored(cx, &parts) else {
                    return pace.poll_timeout(cx);
                };
                let written = written?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                pace.moved(written);
                let of_head = written.min(self.head.len());
                self.head.advance(of_head);
                self.part.advance(written - of_head);
            }
            match next {
                Next::Part => {}
                Next::End => return Poll::Ready(Ok(())),
                Next::Pending => {
                    // TLS may have kept bytes.
                    let Poll::Ready(flushed) = io.as_mut().poll_flush(cx) else {
                        return pace.poll_timeout(cx);
                    };
                    pace.moved(flushed.map(|()| 0)?);
                    return self.failure.take().map_or(Poll::Pending, |failure| Poll::Ready(Err(failure)));
                }
            }
        }
    }

    /// Takes the next part of the body, or notes why it fails.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Next {
        if self.failure.is_some() {
            return Next::Pending;
        }
        let failure = match Pin::new(&mut self.body).poll_next(cx) {
            Poll::Pending => return Next::Pending,
            Poll::Ready(None) if self.left == 0 => return Next::End,
            Poll::Ready(None) => io::ErrorKind::UnexpectedEof.into(),
            Poll::Ready(Some(Err(error))) => io::Error::other(error.to_string()),
            Poll::Ready(Some(Ok(part))) => match self.left.checked_sub(part.len() as u64) {
                Some(left) => {
                    (self.left, self.part) = (left, part);
                    return Next::Part;
                }
                None => io::Error::other("the body is longer than announced"),
            },
        };
        log::error!(error:% = failure; "the body of a response broke off");
        self.failure = Some(failure);
        Next::Pending
    }
}
