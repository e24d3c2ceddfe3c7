//! A connection after a 101: passes bytes in both directions until one side ends it, or the gateway does.
//!
//! ```text
//! Open ──idle, too old, drained──► Closing ──end of a frame──► Closed ──the client's Close──► over
//!   └──one side ends───────────────────────────────────────────────────────────────────────► over
//! ```
//!
//! The Close frame of the gateway goes to the client, between two frames of the replica. The client answers with a
//! Close frame of its own, which the replica gets: so both sides have a proper end.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::{Buf as _, Bytes, Payload};
use futures_util::Stream as _;
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use tokio::io::AsyncWrite as _;

use super::frames::{Frames, close};
use super::pool::Connection;
use super::{Response, UpstreamError};

/// How long each step of the gateway's own end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Codes of RFC 6455 §7.4 and its registry: the client may connect again.
const GOING_AWAY: u16 = 1001;
const SERVICE_RESTART: u16 = 1012;

/// How long a tunnel may last.
#[derive(Debug, Clone, Copy)]
pub struct TunnelLimits {
    /// The longest time without a byte in either direction.
    pub idle: Duration,
    pub end: Instant,
}

/// How a tunnel has ended, and by which side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// One side ended it with a Close frame.
    Properly,
    /// The connection of the client broke.
    ByClient,
    /// The connection of the replica broke.
    ByReplica,
    Idle,
    TooOld,
    /// The gateway drains, or the route is gone.
    Drained,
}

/// The body of a 101. If it is dropped early, the connection to the replica is closed.
pub struct Tunnel {
    connection: Connection,
    client: Payload,
    /// Bytes of the client that the replica has not taken.
    unsent: Bytes,
    unflushed: bool,
    /// The replica takes nothing more. It may have sent its end.
    replica_closed: bool,
    from_client: Frames,
    from_replica: Frames,
    limits: TunnelLimits,
    last: Instant,
    drain: LocalBoxFuture<'static, ()>,
    state: State,
    outcome: Rc<Outcome>,
}

/// The fields of the access log for a tunnel.
#[derive(Debug)]
pub struct Outcome {
    pub ended: Cell<Ended>,
    /// Bytes of the client.
    pub received: Cell<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closing { code: u16, until: Instant },
    Closed { until: Instant },
}

impl Tunnel {
    /// `response` is a 101. The tunnel ends when `drain` is ready.
    pub fn new(
        response: Response,
        client: Payload,
        limits: TunnelLimits,
        drain: LocalBoxFuture<'static, ()>,
    ) -> Option<Self> {
        Some(Self {
            connection: response.body.into_connection()?,
            client,
            unsent: Bytes::new(),
            unflushed: false,
            replica_closed: false,
            from_client: Frames::default(),
            from_replica: Frames::default(),
            limits,
            last: Instant::now(),
            drain,
            state: State::Open,
            outcome: Rc::new(Outcome { ended: Cell::new(Ended::ByClient), received: Cell::new(0) }),
        })
    }

    pub fn outcome(&self) -> Rc<Outcome> {
        self.outcome.clone()
    }

    fn close(&mut self, code: u16, ended: Ended) {
        self.outcome.ended.set(ended);
        self.state = State::Closing { code, until: Instant::now() + CLOSE_TIMEOUT };
    }

    /// A side has ended its connection.
    fn end(&mut self, ended: Ended) {
        if self.state == State::Open {
            let is_proper = self.from_client.has_closed() || self.from_replica.has_closed();
            self.outcome.ended.set(if is_proper { Ended::Properly } else { ended });
        }
    }

    /// Passes on what the client sends. Ready at its end.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        while !self.replica_closed {
            while !self.unsent.is_empty() {
                match Pin::new(&mut self.connection.stream).poll_write(cx, &self.unsent) {
                    Poll::Ready(Ok(written @ 1..)) => {
                        self.unsent.advance(written);
                        (self.unflushed, self.last) = (true, Instant::now());
                    }
                    Poll::Ready(_) => {
                        self.replica_closed = true;
                        return Poll::Pending;
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.unflushed {
                match Pin::new(&mut self.connection.stream).poll_flush(cx) {
                    Poll::Ready(Ok(())) => self.unflushed = false,
                    Poll::Ready(Err(_)) => self.replica_closed = true,
                    Poll::Pending => return Poll::Pending,
                }
            }
            if matches!(self.state, State::Closed { .. }) && self.from_client.has_closed() {
                return Poll::Ready(Ended::Properly);
            }
            match Pin::new(&mut self.client).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    self.outcome.received.set(self.outcome.received.get() + bytes.len() as u64);
                    self.from_client.pass(&bytes);
                    self.unsent = bytes;
                }
                Poll::Ready(_) => return Poll::Ready(Ended::ByClient),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    /// Reads from the replica. `None` at its end.
    fn poll_replica(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match self.connection.read.is_empty() {
                false => {}
                true => match self.connection.poll_read(cx) {
                    Poll::Ready(Ok(1..)) => self.last = Instant::now(),
                    Poll::Ready(_) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                },
            }
            let mut bytes = self.connection.read.split().freeze();
            match self.state {
                State::Open => self.from_replica.pass(&bytes),
                State::Closing { .. } => bytes.truncate(self.from_replica.pass_one(&bytes)),
                // The client has a Close frame already.
                State::Closed { .. } => continue,
            }
            return Poll::Ready(Some(bytes));
        }
    }

    /// Ready when a timer has expired, or the drain has begun.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.state == State::Open && self.drain.poll_unpin(cx).is_ready() {
            self.close(SERVICE_RESTART, Ended::Drained);
            return Poll::Ready(());
        }
        let idle = self.last + self.limits.idle;
        let at = match self.state {
            State::Open => idle.min(self.limits.end),
            State::Closing { until, .. } | State::Closed { until } => until,
        };
        match (self.connection.alarm.poll(cx, at.into()), self.state) {
            (Poll::Pending, _) => return Poll::Pending,
            (_, State::Open) if self.limits.end <= idle => self.close(GOING_AWAY, Ended::TooOld),
            (_, State::Open) => self.close(GOING_AWAY, Ended::Idle),
            (..) => {}
        }
        Poll::Ready(())
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            // Timers first: a replica that sends without a pause would starve them.
            match (self.poll_time(cx), self.state) {
                (Poll::Pending, _) => {}
                (_, State::Closing { until, .. } | State::Closed { until }) if until > Instant::now() => {
                    continue;
                }
                _ => return Poll::Ready(None),
            }
            if let Poll::Ready(ended) = self.poll_client(cx) {
                self.end(ended);
                return Poll::Ready(None);
            }
            if let State::Closing { code, .. } = self.state
                && self.from_replica.is_at_boundary()
            {
                self.state = State::Closed { until: Instant::now() + CLOSE_TIMEOUT };
                // After a Close frame of the replica, no other frame may follow.
                if !self.from_replica.has_closed() {
                    return Poll::Ready(Some(Bytes::copy_from_slice(&close(code))));
                }
            }
            let polled = self.poll_replica(cx);
            if let Poll::Ready(None) = &polled {
                self.end(Ended::ByReplica);
            }
            return polled;
        }
    }
}

impl MessageBody for Tunnel {
    type Error = UpstreamError;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        self.poll_bytes(cx).map(|bytes| bytes.map(Ok))
    }
}
