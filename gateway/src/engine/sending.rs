//! Sends a request: the head, then the body as it arrives from the client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::error::PayloadError;
use actix_web::web::{BufMut as _, Bytes, BytesMut, Payload};
use futures_util::Stream as _;
use shared::tls::Stream;
use tokio::io::AsyncWrite as _;

use super::{Body, Request, UpstreamError};

/// Reads no more of the body while so many bytes are unwritten (back-pressure).
const MAX_UNWRITTEN: usize = 64 * 1024;

/// The unsent rest of a request.
pub(super) struct Sending {
    unwritten: BytesMut,
    /// TLS keeps some of what was written.
    unflushed: bool,
    kept: Option<Bytes>,
    payload: Option<Payload>,
    /// Remaining bytes of the payload by its `Content-Length`; `None` if it is sent in chunks.
    left: Option<u64>,
}

impl Sending {
    pub(super) fn new(request: &mut Request) -> Self {
        let mut unwritten = BytesMut::with_capacity(request.head.len() + 64);
        unwritten.extend_from_slice(&request.head);
        let mut sending = Self { unwritten, unflushed: false, kept: None, payload: None, left: None };
        match std::mem::replace(&mut request.body, Body::Gone) {
            Body::None | Body::Gone => request.body = Body::None,
            Body::Kept(bytes) => {
                sending.header(&format!("content-length: {}\r\n", bytes.len()));
                sending.kept = Some(bytes.clone());
                request.body = Body::Kept(bytes);
            }
            Body::Streaming(payload, Some(length)) => {
                sending.header(&format!("content-length: {length}\r\n"));
                (sending.payload, sending.left) = (Some(payload), Some(length));
            }
            Body::Streaming(payload, None) => {
                sending.header("transfer-encoding: chunked\r\n");
                sending.payload = Some(payload);
            }
        }
        sending.header("\r\n");
        if let Some(kept) = sending.kept.take() {
            sending.unwritten.extend_from_slice(&kept);
        }
        sending
    }

    fn header(&mut self, line: &str) {
        self.unwritten.extend_from_slice(line.as_bytes());
    }

    /// Whether everything received from the client has been written.
    pub(super) fn waits_for_client(&self) -> bool {
        self.payload.is_some() && self.is_written()
    }

    /// Whether more of the body is to come from the client.
    pub(super) fn needs_client(&self) -> bool {
        self.payload.is_some()
    }

    pub(super) fn is_done(&self) -> bool {
        self.payload.is_none() && self.is_written()
    }

    fn is_written(&self) -> bool {
        self.unwritten.is_empty() && !self.unflushed
    }

    /// Writes without blocking; returns whether anything was written.
    pub(super) fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Result<bool, UpstreamError> {
        let mut progress = false;
        loop {
            while !self.unwritten.is_empty() {
                match Pin::new(&mut *stream).poll_write(cx, &self.unwritten) {
                    Poll::Ready(Ok(0)) => {
                        return Err(UpstreamError::Reset(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(written)) => {
                        let _ = self.unwritten.split_to(written);
                        (progress, self.unflushed) = (true, true);
                    }
                    Poll::Ready(Err(error)) => return self.broken(error).map(|()| progress),
                    Poll::Pending => return Ok(progress),
                }
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

    /// The server may have responded early and closed the connection: then its response is read.
    fn broken(&mut self, error: io::Error) -> Result<(), UpstreamError> {
        if !is_closed(&error) {
            return Err(UpstreamError::Reset(error));
        }
        (self.payload, self.unwritten, self.unflushed) = (None, BytesMut::new(), false);
        Ok(())
    }

    /// Reads more of the body from the client into the write buffer.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, UpstreamError> {
        while self.unwritten.len() < MAX_UNWRITTEN {
            let Some(payload) = &mut self.payload else { return Ok(Poll::Ready(())) };
            match (Pin::new(payload).poll_next(cx), self.left) {
                (Poll::Ready(Some(Ok(bytes))), None) => {
                    // An empty chunk would end the body.
                    if !bytes.is_empty() {
                        self.header(&format!("{:x}\r\n", bytes.len()));
                        self.unwritten.extend_from_slice(&bytes);
                        self.header("\r\n");
                    }
                }
                // An excess byte would be read as the begin of another request.
                (Poll::Ready(Some(Ok(bytes))), Some(left)) => {
                    let left = left.checked_sub(bytes.len() as u64).ok_or_else(too_long)?;
                    self.left = Some(left);
                    self.unwritten.put(bytes);
                }
                (Poll::Ready(Some(Err(error))), _) => return Err(UpstreamError::Client(error)),
                (Poll::Ready(None), Some(1..)) => {
                    return Err(UpstreamError::Client(PayloadError::Incomplete(None)));
                }
                (Poll::Ready(None), left) => {
                    self.payload = None;
                    if left.is_none() {
                        self.header("0\r\n\r\n");
                    }
                }
                (Poll::Pending, _) if self.unwritten.is_empty() => return Ok(Poll::Pending),
                (Poll::Pending, _) => break,
            }
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
