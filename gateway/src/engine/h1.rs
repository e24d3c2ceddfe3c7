//! HTTP/1.1 exchanges with replicas, on pooled connections.
//!
//! 1. Take an idle connection, or make one: at most 500 ms for the name, 500 ms for TCP, and 2 s for a TLS handshake.
//! 2. Write the head, then the body as it arrives from the client, with back-pressure.
//! 3. Read the head of the response. If it arrives before the request is sent completely, both continue.
//! 4. Stream the body of the response; at its end, the connection is idle again.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::BodySize;
use actix_web::http::StatusCode;
use shared::http::blames_peer;
use shared::tls::{PeerTls, Stream};
use tokio::net::TcpStream;

use super::body::{Receiving, ResponseBody};
use super::pool::{Buffers, Connection, IdleConnections, ReplicaConnections};
use super::sending::Sending;
use super::wire::{Framing, Head, take_head};
use super::{Headers, Request, Response, UpstreamError};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A server that closes an idle connection does so before it has the request, so its close usually arrives within this
/// time. A later close probably is a crash. It counts against the replica, and the request may still be retried there.
const STALE_TIME: Duration = Duration::from_millis(10);

/// Sends requests to replicas. One per worker thread; clones share the idle connections.
#[derive(Clone, Default)]
pub struct Engine {
    pool: IdleConnections,
}

async fn connect(
    authority: &str,
    peer: Option<&PeerTls>,
    buffers: &Buffers,
) -> Result<Connection, UpstreamError> {
    // The name is resolved in a separate step, because a failure of the name server says nothing about the replica.
    let addresses = in_time(resolve(authority)).await.map_err(UpstreamError::Local)?;
    let opened = in_time(open(&addresses)).await;
    let secured = match (opened, peer) {
        (Ok(stream), Some(peer)) => peer.connect(stream).await,
        (opened, _) => opened.map(Stream::Plain),
    };
    match secured {
        Ok(stream) => Ok(Connection::new(stream, buffers.clone())),
        Err(error) if blames_peer(&error) => Err(UpstreamError::Unreachable(error)),
        Err(error) => Err(UpstreamError::Local(error)),
    }
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(CONNECT_TIMEOUT, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn resolve(authority: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host(authority).await?.collect())
}

async fn open(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addresses).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Engine {
    /// Sends `request` to `authority` (`host:port`), over TLS if a `peer` is given; returns when the head of the
    /// response has arrived.
    ///
    /// A streaming body is taken out of `request` only after a connection is made. If no connection can be made, the
    /// same request can be sent to another replica.
    pub async fn exchange(
        &self,
        authority: &str,
        peer: Option<&PeerTls>,
        request: &mut Request,
    ) -> Result<Response, UpstreamError> {
        // The key holds the service's name: with the same address, a connection may be to another service.
        let key = match peer {
            Some(peer) => Cow::from(format!("{}@{authority}", peer.service())),
            None => Cow::from(authority),
        };
        let replica = self.pool.replica(&key, Instant::now());
        let connection = match replica.take() {
            Some(connection) => connection,
            // Boxed, because most requests reuse a connection. Without the box, the future of every request would be
            // larger.
            None => Box::pin(connect(authority, peer, self.pool.buffers())).await?,
        };
        self.exchange_on(connection, replica, request).await
    }

    async fn exchange_on(
        &self,
        mut connection: Connection,
        replica: Rc<ReplicaConnections>,
        request: &mut Request,
    ) -> Result<Response, UpstreamError> {
        let mut sending = Sending::new(request, self.pool.buffers())?;
        let began = Instant::now();
        // The time when the last byte was sent.
        let mut since = began;
        let head = loop {
            // Every byte sent or received restarts the timeout.
            let mut silent_until = None;
            let step = poll_fn(|cx| match poll_step(&mut connection, &mut sending, cx) {
                Poll::Pending => {
                    let end = if sending.needs_client() { request.upload_end } else { request.end };
                    let end = sending.held_until().map_or(end, |until| until.min(end));
                    let silent_until =
                        *silent_until.get_or_insert_with(|| Instant::now() + request.head_timeout);
                    connection.alarm.poll(cx, end.min(silent_until).into()).map(|()| Ok(Step::TimedOut))
                }
                step => step,
            });
            let received = match step.await {
                Ok(Step::TimedOut) if sending.release() => continue,
                Ok(Step::TimedOut) if sending.waits_for_client() => return Err(UpstreamError::SlowClient),
                Ok(Step::TimedOut) => return Err(UpstreamError::TimedOut(since.elapsed())),
                Ok(Step::Sent) => {
                    since = Instant::now();
                    continue;
                }
                Ok(Step::Received) => final_head(&mut connection, &mut sending, request)?,
                Ok(Step::Closed) | Err(UpstreamError::Reset(_)) if connection.is_unanswered() => {
                    return Err(unanswered(began));
                }
                Ok(Step::Closed) => {
                    return Err(UpstreamError::Reset(io::ErrorKind::UnexpectedEof.into()));
                }
                Err(error) => return Err(error),
            };
            if let Some(head) = received {
                break head;
            }
        };
        if head.status.is_success() {
            // The replica answers before it has read the body, and may want it.
            sending.release();
        }
        let is_upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let receiving = Receiving { keep: head.keeps_alive.then_some(replica), connection, sending };
        let is_event_stream = head.is_event_stream;
        let framing = if is_upgraded { Framing::Close } else { head.framing };
        let end = if is_event_stream || is_upgraded { None } else { Some(request.end) };
        let size = match head.status.as_u16() {
            204 | 304 => BodySize::None,
            _ if request.is_head => declared_length(&head.headers).map_or(BodySize::None, BodySize::Sized),
            _ => framing.size(),
        };
        let body = ResponseBody::new(receiving, framing, size, end);
        Ok(Response { status: head.status, headers: head.headers, is_event_stream, body })
    }
}

/// Why a server closed a reused connection, without a byte, to which a request was sent since `began`.
fn unanswered(began: Instant) -> UpstreamError {
    if began.elapsed() < STALE_TIME { UpstreamError::Stale } else { UpstreamError::Unanswered }
}

/// The head of the response, if it has arrived. Informational heads may come before it, even in the same read. A 103 is
/// passed on, a 100 lets the body go, and all others are dropped.
fn final_head(
    connection: &mut Connection,
    sending: &mut Sending,
    request: &Request,
) -> Result<Option<Head>, UpstreamError> {
    loop {
        let Some(head) = take_head(&mut connection.read, request.is_head)? else { return Ok(None) };
        match (head.status.as_u16(), &request.client) {
            (101, _) if request.is_upgrade && is_websocket(&head.headers) => return Ok(Some(head)),
            (101, _) => return Err(UpstreamError::Malformed("a protocol that nobody asked for".to_owned())),
            (100, _) => {
                sending.release();
            }
            (103, Some(client)) => client.send_early(&super::wire::early_hints(&head.headers)),
            _ if head.status.is_informational() => {}
            _ => return Ok(Some(head)),
        }
    }
}

fn is_websocket(headers: &Headers) -> bool {
    headers.get("upgrade").is_some_and(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
}

/// `Content-Length` of a response to HEAD.
fn declared_length(headers: &Headers) -> Option<u64> {
    headers.get("content-length")?.trim().parse().ok()
}

enum Step {
    Sent,
    Received,
    Closed,
    TimedOut,
}

/// Sends and receives without blocking.
fn poll_step(
    connection: &mut Connection,
    sending: &mut Sending,
    cx: &mut Context<'_>,
) -> Poll<Result<Step, UpstreamError>> {
    if sending.poll(&mut connection.stream, cx)? {
        return Poll::Ready(Ok(Step::Sent));
    }
    match connection.poll_read(cx) {
        Poll::Ready(Ok(0)) => Poll::Ready(Ok(Step::Closed)),
        Poll::Ready(Ok(_)) => Poll::Ready(Ok(Step::Received)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(UpstreamError::Reset(error))),
        Poll::Pending => Poll::Pending,
    }
}
