//! Streams the response body. It reads from the replica only when the client can take more (back-pressure).

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::{Buf as _, Bytes};
use shared::service::{Chunks, Piece};

use super::UpstreamError;
use super::pool::{Connection, ReplicaConnections, take};
use super::sending::Sending;
use super::wire::Framing;

/// Longest pause between two reads.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection with an incomplete response.
pub(super) struct Receiving {
    pub(super) connection: Connection,
    /// The unsent rest of the request, if the response came early.
    pub(super) sending: Sending,
    /// Where the connection goes afterwards, if it can be reused.
    pub(super) keep: Option<Rc<ReplicaConnections>>,
}

/// The body of a response. If it is dropped early, the connection is closed.
pub struct ResponseBody {
    receiving: Option<Receiving>,
    size: BodySize,
    left: Left,
    end: Option<Instant>,
    /// Since when the body waits for the next byte, and until when it must arrive. Set while the body waits.
    waits: Option<(Instant, Instant)>,
    on_end: Option<OnEnd>,
}

/// Gets the error that ends the body, or `None` at its proper end.
type OnEnd = Box<dyn FnOnce(Option<&UpstreamError>)>;

enum Left {
    Nothing,
    Bytes(u64),
    Chunks(Chunks),
    UntilClose,
}

impl ResponseBody {
    pub(super) fn new(receiving: Receiving, framing: Framing, size: BodySize, end: Option<Instant>) -> Self {
        let left = match framing {
            Framing::None => Left::Nothing,
            Framing::Length(length) => Left::Bytes(length),
            Framing::Chunked => Left::Chunks(Chunks::default()),
            Framing::Close => Left::UntilClose,
        };
        let mut body = Self { receiving: Some(receiving), size, left, end, waits: None, on_end: None };
        if matches!(body.left, Left::Nothing) {
            body.finish();
        }
        body
    }

    /// Calls `on_end` at the end of the body, unless the body is dropped before.
    pub fn on_end(&mut self, on_end: impl FnOnce(Option<&UpstreamError>) + 'static) {
        self.on_end = Some(Box::new(on_end));
    }

    /// Whether the whole body was received.
    pub fn is_over(&self) -> bool {
        self.receiving.is_none()
    }

    /// The connection to the replica, if the response is not over.
    pub(super) fn into_connection(self) -> Option<Connection> {
        self.receiving.map(|receiving| receiving.connection)
    }

    /// Returns the connection to the pool, if the request was sent completely.
    fn finish(&mut self) {
        self.left = Left::Nothing;
        let Some(Receiving { connection, sending, keep }) = self.receiving.take() else { return };
        if let Some(replica) = keep.filter(|_| sending.is_done()) {
            replica.give_back(connection, sending.into_buffer());
        }
    }

    /// The next part of the body from the read buffer; `None` if more must be read.
    fn next_piece(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let Some(Receiving { connection, .. }) = &mut self.receiving else { return Ok(None) };
        let read = &mut connection.read;
        match &mut self.left {
            Left::Nothing => Ok(None),
            _ if read.is_empty() => Ok(None),
            Left::UntilClose => Ok(Some(read.split().freeze())),
            Left::Bytes(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= here as u64;
                let bytes = take(read, here);
                if *left == 0 {
                    self.finish();
                }
                Ok(Some(bytes))
            }
            Left::Chunks(chunks) => {
                match chunks.next(read).map_err(|why| UpstreamError::Malformed(why.to_string()))? {
                    Piece::Data(skip, length) => {
                        read.advance(skip);
                        Ok(Some(take(read, length)))
                    }
                    Piece::Incomplete(skip) => {
                        read.advance(skip);
                        Ok(None)
                    }
                    Piece::End(skip) => {
                        read.advance(skip);
                        self.finish();
                        Ok(None)
                    }
                }
            }
        }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        loop {
            match self.next_piece() {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Ok(None) if matches!(self.left, Left::Nothing) => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let Some(receiving) = &mut self.receiving else { return Poll::Ready(None) };
            if let Err(error) = receiving.sending.poll(&mut receiving.connection.stream, cx) {
                return Poll::Ready(Some(Err(error)));
            }
            match receiving.connection.poll_read(cx) {
                Poll::Ready(Ok(0)) if matches!(self.left, Left::UntilClose) => self.finish(),
                // A truncated body must not look complete to the client.
                Poll::Ready(Ok(0)) => {
                    let early = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Some(Err(UpstreamError::Reset(early))));
                }
                Poll::Ready(Ok(_)) => self.waits = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(UpstreamError::Reset(error)))),
                Poll::Pending => {
                    let (since, until) = *self.waits.get_or_insert_with(|| wait(self.end));
                    ready!(receiving.connection.alarm.poll(cx, until.into()));
                    return Poll::Ready(Some(Err(UpstreamError::TimedOut(since.elapsed()))));
                }
            }
        }
    }
}

/// A wait that begins now: its beginning, and its end at the latest at `end`.
fn wait(end: Option<Instant>) -> (Instant, Instant) {
    let now = Instant::now();
    let silence = now + READ_TIMEOUT;
    (now, end.map_or(silence, |end| end.min(silence)))
}

impl MessageBody for ResponseBody {
    type Error = UpstreamError;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let polled = self.poll_bytes(cx);
        let error = match &polled {
            Poll::Ready(Some(Err(error))) => Some(error),
            _ => None,
        };
        if (error.is_some() || self.is_over())
            && let Some(on_end) = self.on_end.take()
        {
            on_end(error);
        }
        polled
    }
}
