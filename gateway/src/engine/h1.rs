//! HTTP/1.1 to replicas, on connections of our own.
//!
//! 1. Take an idle connection, or make one (500 ms).
//! 2. Write the head; write the body as it comes, never reading more of it than can be written.
//! 3. Read the head of the answer. It may come before the body is sent: then both go on.
//! 4. Hand out the body as it is read; when it is over, the connection is idle again.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_web::body::BodySize;
use actix_web::error::PayloadError;
use actix_web::web::{BufMut as _, Bytes, BytesMut, Payload};
use futures_util::Stream as _;
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::body::{AnswerBody, Exchange};
use super::pool::{Connection, Pool};
use super::wire::read_head;
use super::{Answer, Body, Engine, ExchangeError, Request};

const CONNECT: Duration = Duration::from_millis(500);
/// Bytes read from a connection at once.
const READ: usize = 16 * 1024;
/// Bytes that wait to be written before more of a body is read.
const UNWRITTEN: usize = 64 * 1024;

/// The engine. Clones share the idle connections of their thread.
#[derive(Clone, Default)]
pub struct H1Engine {
    pool: Pool,
}

impl Engine for H1Engine {
    fn exchange<'a>(
        &'a self,
        authority: &'a str,
        request: &'a mut Request,
    ) -> LocalBoxFuture<'a, Result<Answer, ExchangeError>> {
        async move {
            let connection = match self.pool.take(authority) {
                Some(connection) => connection,
                None => connect(authority).await.map_err(ExchangeError::Unreachable)?,
            };
            self.exchange_on(connection, authority, request).await
        }
        .boxed_local()
    }
}

async fn connect(authority: &str) -> io::Result<Connection> {
    let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(authority)).await;
    let stream = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    stream.set_nodelay(true)?;
    Ok(Connection { stream, read: BytesMut::new(), reused: false })
}

impl H1Engine {
    async fn exchange_on(
        &self,
        mut connection: Connection,
        authority: &str,
        request: &mut Request,
    ) -> Result<Answer, ExchangeError> {
        let mut sending = Sending::new(request);
        let head = loop {
            // Every byte that is sent or received restarts the clock.
            let patience = request.head_timeout.min(request.end.saturating_duration_since(Instant::now()));
            let step = poll_fn(|cx| poll_step(&mut connection, &mut sending, cx));
            let received = match tokio::time::timeout(patience, step).await {
                Err(_) if sending.waits_for_client() => return Err(ExchangeError::SlowClient),
                Err(_) => return Err(ExchangeError::TimedOut),
                Ok(Ok(Step::Sent)) => continue,
                Ok(Ok(Step::Received)) => read_head(&connection.read, request.is_head)?,
                Ok(Ok(Step::Closed)) if connection.is_stale() => return Err(ExchangeError::Stale),
                Ok(Err(ExchangeError::Reset(_))) if connection.is_stale() => {
                    return Err(ExchangeError::Stale);
                }
                Ok(Ok(Step::Closed)) => {
                    return Err(ExchangeError::Reset(io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(Err(error)) => return Err(error),
            };
            let Some((head, length)) = received else { continue };
            let _ = connection.read.split_to(length);
            // 100 Continue and 103 Early Hints are for this hop.
            if !head.status.is_informational() {
                break head;
            }
        };
        let is_events = head.headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("content-type") && value.starts_with(b"text/event-stream")
        });
        let exchange = Exchange {
            keep: (head.keeps_alive).then(|| (self.pool.clone(), authority.to_owned())),
            connection,
            sending,
        };
        let end = if is_events { None } else { Some(request.end) };
        let size = match head.status.as_u16() {
            204 | 304 => BodySize::None,
            _ if request.is_head => BodySize::Sized(told_length(&head.headers).unwrap_or(0)),
            _ => head.framing.size(),
        };
        let body = AnswerBody::new(exchange, head.framing, size, end);
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// The length that the head tells of a body that HEAD does not get.
fn told_length(headers: &[(String, Vec<u8>)]) -> Option<u64> {
    let (_, value) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

enum Step {
    Sent,
    Received,
    Closed,
}

/// Sends what can be sent and reads what is there.
fn poll_step(
    connection: &mut Connection,
    sending: &mut Sending,
    cx: &mut Context<'_>,
) -> Poll<Result<Step, ExchangeError>> {
    let sent = sending.poll(&mut connection.stream, cx)?;
    match poll_read(connection, cx) {
        Poll::Ready(Ok(0)) => Poll::Ready(Ok(Step::Closed)),
        Poll::Ready(Ok(_)) => Poll::Ready(Ok(Step::Received)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(ExchangeError::Reset(error))),
        Poll::Pending if sent => Poll::Ready(Ok(Step::Sent)),
        Poll::Pending => Poll::Pending,
    }
}

/// Reads into the connection's buffer; 0 at its end.
pub(super) fn poll_read(connection: &mut Connection, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    connection.read.reserve(READ);
    let spare = connection.read.len();
    connection.read.resize(spare + READ, 0);
    let mut buffer = ReadBuf::new(&mut connection.read[spare..]);
    let polled = Pin::new(&mut connection.stream).poll_read(cx, &mut buffer);
    let filled = buffer.filled().len();
    connection.read.truncate(spare + filled);
    ready!(polled)?;
    Poll::Ready(Ok(filled))
}

/// The rest of a request that is on its way.
pub(super) struct Sending {
    unwritten: BytesMut,
    kept: Option<Bytes>,
    payload: Option<Payload>,
    /// What is still to come of the payload, by the length that was told; chunks tell their own.
    left: Option<u64>,
}

impl Sending {
    fn new(request: &mut Request) -> Self {
        let mut unwritten = BytesMut::with_capacity(request.head.len() + 64);
        unwritten.extend_from_slice(&request.head);
        let mut sending = Self { unwritten, kept: None, payload: None, left: None };
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

    /// Whether the next byte is the client's to send.
    fn waits_for_client(&self) -> bool {
        self.payload.is_some() && self.unwritten.is_empty()
    }

    /// Whether all has been sent.
    pub(super) fn is_done(&self) -> bool {
        self.payload.is_none() && self.unwritten.is_empty()
    }

    /// Writes what can be written; tells whether anything was.
    pub(super) fn poll(
        &mut self,
        stream: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Result<bool, ExchangeError> {
        let mut progress = false;
        loop {
            while !self.unwritten.is_empty() {
                match Pin::new(&mut *stream).poll_write(cx, &self.unwritten) {
                    Poll::Ready(Ok(0)) => {
                        return Err(ExchangeError::Reset(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(written)) => {
                        let _ = self.unwritten.split_to(written);
                        progress = true;
                    }
                    // The other side may have answered and closed: what it said is read first.
                    Poll::Ready(Err(error)) if is_closed(&error) => {
                        (self.payload, self.unwritten) = (None, BytesMut::new());
                        return Ok(progress);
                    }
                    Poll::Ready(Err(error)) => return Err(ExchangeError::Reset(error)),
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

    /// Takes more of the body from the client, now that all before is written.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, ExchangeError> {
        while self.unwritten.len() < UNWRITTEN {
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
                // A byte more than was told would begin another request.
                (Poll::Ready(Some(Ok(bytes))), Some(left)) => {
                    let left = left.checked_sub(bytes.len() as u64).ok_or_else(too_long)?;
                    self.left = Some(left);
                    self.unwritten.put(bytes);
                }
                (Poll::Ready(Some(Err(error))), _) => return Err(ExchangeError::Client(error)),
                (Poll::Ready(None), Some(1..)) => {
                    return Err(ExchangeError::Client(PayloadError::Incomplete(None)));
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

fn too_long() -> ExchangeError {
    ExchangeError::Client(PayloadError::Overflow)
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
