//! Sends a request: the head, then the body as it arrives from the client.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::error::PayloadError;
use actix_web::web::{Buf as _, Bytes, BytesMut, Payload};
use futures_util::Stream as _;
use shared::tls::Stream;
use tokio::io::AsyncWrite as _;

use super::pool::{Buffers, READ_SIZE};
use super::{Body, Request, UpstreamError};

/// The unsent rest of a request.
pub(super) struct Sending {
    /// The head, and the framing of chunks.
    unwritten: BytesMut,
    /// A buffered body, or a part of a streaming one. It is written after `unwritten`.
    part: Bytes,
    /// Whether TLS may still buffer written bytes.
    unflushed: bool,
    payload: Option<Payload>,
    /// Remaining bytes of the payload by its `Content-Length`; `None` if it is sent in chunks.
    left: Option<u64>,
    /// How long the payload waits for a 100 of the server.
    held_until: Option<Instant>,
    buffers: Buffers,
}

/// A server that knows nothing of `Expect` waits for the body.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

impl Sending {
    pub(super) fn new(request: &mut Request, buffers: &Buffers) -> Result<Self, UpstreamError> {
        let mut unwritten = buffers.take(READ_SIZE);
        unwritten.extend_from_slice(&request.head);
        let mut sending = Self {
            unwritten,
            part: Bytes::new(),
            unflushed: false,
            payload: None,
            left: None,
            held_until: None,
            buffers: buffers.clone(),
        };
        if request.awaits_continue && matches!(request.body, Body::Streaming(..)) {
            sending.text("expect: 100-continue\r\n");
            sending.held_until = Some(Instant::now() + CONTINUE_TIMEOUT);
        }
        match std::mem::replace(&mut request.body, Body::Gone) {
            // Without its body, this would be another request.
            Body::Gone => return Err(UpstreamError::Client(PayloadError::Incomplete(None))),
            Body::None => {
                sending.text("\r\n");
                request.body = Body::None;
            }
            Body::Kept(bytes) => {
                sending.length(bytes.len() as u64);
                sending.part = bytes.clone();
                request.body = Body::Kept(bytes);
            }
            Body::Streaming(payload, Some(length)) => {
                sending.length(length);
                (sending.payload, sending.left) = (Some(payload), Some(length));
            }
            Body::Streaming(payload, None) => {
                sending.text("transfer-encoding: chunked\r\n\r\n");
                sending.payload = Some(payload);
            }
        }
        Ok(sending)
    }

    /// The length of the body, and the end of the head.
    fn length(&mut self, length: u64) {
        let mut digits = itoa::Buffer::new();
        ["content-length: ", digits.format(length), "\r\n\r\n"].into_iter().for_each(|text| self.text(text));
    }

    fn text(&mut self, text: &str) {
        self.unwritten.extend_from_slice(text.as_bytes());
    }

    fn has_bytes(&self) -> bool {
        !self.unwritten.is_empty() || !self.part.is_empty()
    }

    fn is_written(&self) -> bool {
        !self.has_bytes() && !self.unflushed
    }

    /// Whether all bytes received from the client have been written, and more must come.
    pub(super) fn waits_for_client(&self) -> bool {
        self.payload.is_some() && self.is_written()
    }

    /// Whether the client has not yet sent the whole body.
    pub(super) fn needs_client(&self) -> bool {
        self.payload.is_some()
    }

    /// How long the body waits for a 100.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// Lets the body go. Returns whether it has waited for that.
    pub(super) fn release(&mut self) -> bool {
        self.held_until.take().is_some()
    }

    pub(super) fn is_done(&self) -> bool {
        self.payload.is_none() && self.is_written()
    }

    /// Writes without blocking; returns whether anything was written.
    pub(super) fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Result<bool, UpstreamError> {
        let mut progress = false;
        loop {
            while self.has_bytes() {
                let parts = [IoSlice::new(&self.unwritten), IoSlice::new(&self.part)];
                match Pin::new(&mut *stream).poll_write_vectored(cx, &parts) {
                    Poll::Ready(Ok(0)) => {
                        return Err(UpstreamError::Reset(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(written)) => {
                        let first = written.min(self.unwritten.len());
                        self.unwritten.advance(first);
                        self.part.advance(written - first);
                        if self.part.is_empty() {
                            // The client's connection can then use its memory for the next part.
                            self.part = Bytes::new();
                        }
                        (progress, self.unflushed) = (true, true);
                    }
                    Poll::Ready(Err(error)) => return self.broken(error).map(|()| progress),
                    Poll::Pending => return Ok(progress),
                }
            }
            if (self.payload.is_none() || self.left.is_some()) && self.unwritten.capacity() > 0 {
                // Only chunks need it again. While this request waits, other requests use the buffer.
                self.buffers.put(std::mem::take(&mut self.unwritten));
            }
            if self.unflushed {
                match Pin::new(&mut *stream).poll_flush(cx) {
                    Poll::Ready(Ok(())) => self.unflushed = false,
                    Poll::Ready(Err(error)) => return self.broken(error).map(|()| progress),
                    Poll::Pending => return Ok(progress),
                }
            }
            match self.poll_body(cx)? {
                Poll::Ready(()) => {}
                Poll::Pending => return Ok(progress),
            }
            if self.is_done() {
                return Ok(progress);
            }
        }
    }

    /// Stops sending if the server has closed the connection. It may have responded early, so its response is read.
    fn broken(&mut self, error: io::Error) -> Result<(), UpstreamError> {
        if !is_closed(&error) {
            return Err(UpstreamError::Reset(error));
        }
        (self.payload, self.part, self.unflushed) = (None, Bytes::new(), false);
        self.unwritten.clear();
        Ok(())
    }

    /// Takes the next part of the body from the client, once the last is written.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, UpstreamError> {
        let Some(payload) = &mut self.payload else { return Ok(Poll::Ready(())) };
        if self.held_until.is_some() {
            return Ok(Poll::Pending);
        }
        match (Pin::new(payload).poll_next(cx), self.left) {
            (Poll::Ready(Some(Ok(bytes))), None) => {
                // An empty chunk would end the body.
                if !bytes.is_empty() {
                    self.text(&format!("{:x}\r\n", bytes.len()));
                    self.unwritten.extend_from_slice(&bytes);
                    self.text("\r\n");
                }
            }
            // The server would read an excess byte as the start of another request.
            (Poll::Ready(Some(Ok(bytes))), Some(left)) => {
                let left = left.checked_sub(bytes.len() as u64).ok_or_else(too_long)?;
                self.left = Some(left);
                self.part = bytes;
            }
            (Poll::Ready(Some(Err(error))), _) => return Err(UpstreamError::Client(error)),
            (Poll::Ready(None), Some(1..)) => {
                return Err(UpstreamError::Client(PayloadError::Incomplete(None)));
            }
            (Poll::Ready(None), left) => {
                self.payload = None;
                if left.is_none() {
                    self.text("0\r\n\r\n");
                }
            }
            (Poll::Pending, _) => return Ok(Poll::Pending),
        }
        Ok(Poll::Ready(()))
    }
}

fn too_long() -> UpstreamError {
    UpstreamError::Client(PayloadError::Overflow)
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn request(body: Body) -> Request {
        let now = Instant::now();
        Request {
            head: b"POST / HTTP/1.1\r\n".to_vec(),
            body,
            is_upgrade: false,
            is_head: false,
            awaits_continue: false,
            head_timeout: Duration::ZERO,
            client: None,
            upload_end: now,
            end: now,
        }
    }

    #[test]
    fn a_request_is_not_sent_again_without_the_body_that_an_earlier_attempt_has_consumed() {
        let sending = Sending::new(&mut request(Body::Gone), &Buffers::default());
        assert!(matches!(sending, Err(UpstreamError::Client(PayloadError::Incomplete(None)))));
    }

    #[tokio::test]
    async fn while_a_request_waits_for_its_response_another_one_uses_the_buffer_of_its_head() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut request, buffers) = (request(Body::None), Buffers::default());
        let buffer = buffers.take(READ_SIZE);
        let memory = buffer.as_ptr();
        buffers.put(buffer);
        let mut sending = Sending::new(&mut request, &buffers).unwrap();
        assert_ne!(buffers.take(READ_SIZE).as_ptr(), memory);
        let mut stream = Stream::Plain(stream);
        assert!(poll_fn(|cx| Poll::Ready(sending.poll(&mut stream, cx))).await.unwrap());
        assert_eq!(buffers.take(READ_SIZE).as_ptr(), memory);
    }
}
