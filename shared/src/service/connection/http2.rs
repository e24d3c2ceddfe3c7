//! One client connection with HTTP/2: many requests at a time. actix's own dispatcher limits neither concurrent
//! streams nor resets, and does not drain (ADR 15), so the requests come from the `h2` crate.
//!
//! | rule | because |
//! |---|---|
//! | At most [`MAX_STREAMS`] requests at a time, each head at most [`ClientLimits::head_size`]. | A connection counts as one, whatever runs on it. |
//! | On all its connections, a client has at most as many requests at a time as it may have connections. | Each costs what a connection with HTTP/1.1 does. |
//! | A client that resets too many streams, or sends too many requests that are malformed or beyond its own limit, is disconnected ([`misuse`]). | A reset stream is not counted as running, and has cost a request (CVE-2023-44487). |
//! | All responses together hold a limited number of bytes that the socket has not taken ([`backlog`]). | The client chooses the windows. |
//! | Bodies arrive, and responses are taken, with [`ClientLimits::min_rate`]; so are the bytes of the connection. | A slow client holds memory and a replica. |
//! | A connection without a request is closed after [`IDLE_TIMEOUT`], or when there are too many. | It costs memory. |
//! | When the drain begins, the client gets GOAWAY: it must open no more streams. Running ones are finished. Those that it opens later than [`CLOSE_TIMEOUT`] are refused. | No request fails, and the client cannot keep the connection. |

mod backlog; // responses that the socket has not taken
mod body; // the body of a request
mod misuse; // how often a client may reset streams, or send what is refused
mod paced; // a socket whose client must read
mod request; // as actix has it from HTTP/1.1
mod response; // sends the response

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::header::EXPECT;
use actix_http::{HttpMessage as _, Request};
use actix_service::Service;
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::web::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use tokio::time::Instant;

use self::backlog::Backlog;
use self::misuse::Misuse;
use self::paced::Paced;
use super::idle::Place;
use super::pace::Pace;
use super::{ClientLimits, Exchange, IDLE_TIMEOUT, IdleConnections};
use crate::alarm::Alarm;
use crate::metrics;
use crate::problem::Problem;
use crate::service::shares::{Full, Shares};
use crate::stop::Stop;
use crate::tls::Stream;

/// Concurrent requests of one connection.
const MAX_STREAMS: u32 = 100;
/// How many times a connection polls its requests in one turn. Then the other connections of the thread have theirs.
/// Without this limit, 100 connections with 100 requests each delay every other connection by 10,000 polls.
const STEPS: usize = 4;
/// Bytes of one request's body that the client may send before they are read, and of all bodies of a connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Bytes of one response that wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a client may take to confirm that it opens no more streams.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// During a drain, how long a new connection may wait for its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Serves HTTP/2 connections with `app`.
pub(in crate::service) struct Http2<S> {
    pub(in crate::service) app: Rc<S>,
    pub(in crate::service) service: &'static str,
    pub(in crate::service) limits: ClientLimits,
    /// The running requests of all connections.
    pub(in crate::service) requests: Arc<Shares>,
    pub(in crate::service) idle: Rc<IdleConnections>,
    pub(in crate::service) draining: Stop,
}

/// How the exchange of a stream has ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Answered,
    /// This side reset it, because the client did not take the response.
    TooSlow,
    /// The client reset it before it had the whole response; or `h2` did, because the client broke the protocol.
    Reset,
    /// No handler has seen the request: it is malformed, or the client has too many.
    Refused,
}

impl<S, B> Http2<S>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    /// Serves one connection to its end.
    pub(in crate::service) async fn serve(self: Rc<Self>, stream: Stream, peer: SocketAddr) {
        let backlog = Rc::new(Backlog::default());
        let handshake = Builder::new()
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(self.limits.head_size).unwrap_or(u32::MAX))
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake(Paced::new(stream, self.limits, backlog.clone()));
        let handshake = tokio::time::timeout(self.limits.head_timeout, handshake);
        let Ok(Ok(connection)) = handshake.await else { return };
        let draining = self.draining.clone();
        let exchange = Rc::new(Exchange::default());
        let mut open = Open {
            _place: self.idle.enter(exchange.clone()),
            connection,
            peer,
            running: FuturesUnordered::new(),
            steps: Rc::default(),
            requests: 0,
            misuse: Misuse::default(),
            backlog,
            exchange,
            accepted: Instant::now(),
            quiet_since: None,
            closing_since: None,
            drain: Some(async move { draining.requested().await }.boxed_local()),
            alarm: Alarm::default(),
            http2: self,
        };
        poll_fn(|cx| open.poll(cx)).await;
    }
}

/// An open connection.
struct Open<S> {
    http2: Rc<Http2<S>>,
    connection: h2::server::Connection<Paced<Stream>, Bytes>,
    peer: SocketAddr,
    running: FuturesUnordered<LocalBoxFuture<'static, Ended>>,
    /// The rest of [`STEPS`] in this turn.
    steps: Rc<Cell<usize>>,
    /// The number of requests so far.
    requests: u64,
    misuse: Misuse,
    backlog: Rc<Backlog>,
    /// The exchange of the connection, not of a request: says that it is evicted.
    exchange: Rc<Exchange>,
    _place: Place,
    accepted: Instant,
    /// When its last request ended. `None` while one runs.
    quiet_since: Option<Instant>,
    /// When the client was told to open no more streams.
    closing_since: Option<Instant>,
    /// `None` once the drain has begun.
    drain: Option<LocalBoxFuture<'static, ()>>,
    alarm: Alarm,
}

impl<S, B> Open<S>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    /// Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.steps.set(STEPS);
        loop {
            while let Poll::Ready(Some(ended)) = self.running.poll_next_unpin(cx) {
                if matches!(ended, Ended::Reset | Ended::Refused) {
                    self.count_misuse();
                }
            }
            // Sends and receives for all streams.
            match self.connection.poll_accept(cx) {
                // Without a step left, one new request in each turn.
                Poll::Ready(Some(Ok((request, respond)))) if self.steps.get() == 0 => {
                    self.begin(request, respond);
                    return self.poll_next_turn(cx);
                }
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending if self.steps.get() == 0 => return self.poll_next_turn(cx),
                Poll::Pending => {
                    self.backlog.written();
                    match ready!(self.poll_close(cx)) {
                        Closing::Begun => {}
                        Closing::Over => return Poll::Ready(()),
                    }
                }
            }
        }
    }

    /// Ends a turn after which requests may still be ready. A drain begins also then.
    fn poll_next_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        cx.waker().wake_by_ref();
        self.backlog.written();
        match self.poll_close(cx) {
            Poll::Ready(Closing::Over) => Poll::Ready(()),
            Poll::Ready(Closing::Begun) | Poll::Pending => Poll::Pending,
        }
    }

    fn count_misuse(&mut self) {
        if !self.misuse.allow(Instant::now()) {
            log::warn!(peer = self.peer.to_string(); "a client that resets too many streams, or sends what is refused, is disconnected");
            metrics::refused_connection("misuse");
            self.running.clear();
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
    }

    fn begin(&mut self, request: ::http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        // Whatever the client opens now, it has had the time to see that the connection closes.
        if self.closing_since.is_some_and(|since| since.elapsed() > CLOSE_TIMEOUT) {
            respond.send_reset(Reason::REFUSED_STREAM);
            return self.count_misuse();
        }
        (self.requests, self.quiet_since) = (self.requests + 1, None);
        self.exchange.idle_since.set(None);
        let exchange = self.http2.clone().exchange(request, respond, self.peer, self.backlog.clone());
        self.running.push(in_steps(exchange, self.steps.clone()).boxed_local());
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Closing> {
        let is_quiet = self.running.is_empty();
        if is_quiet {
            self.quiet_since.get_or_insert_with(Instant::now);
        }
        if let Some(since) = self.closing_since {
            let Some(quiet_since) = self.quiet_since else { return Poll::Pending };
            // The end of a response may still be on its way.
            let wait = if self.connection.has_streams() { IDLE_TIMEOUT } else { CLOSE_TIMEOUT };
            ready!(self.alarm.poll(cx, since.max(quiet_since) + wait));
            return Poll::Ready(Closing::Over);
        }
        self.exchange.idle_since.set(self.quiet_since);
        self.exchange.wake_with(cx.waker());
        if !(is_quiet && self.exchange.is_evicted.get()) {
            let idle = self.quiet_since.map(|since| since + IDLE_TIMEOUT);
            let Some(at) = idle.into_iter().chain(self.poll_drain(cx)).min() else { return Poll::Pending };
            ready!(self.alarm.poll(cx, at));
        }
        self.closing_since = Some(Instant::now());
        self.connection.graceful_shutdown();
        Poll::Ready(Closing::Begun)
    }

    /// When the connection closes because of the drain; `None` before it. A connection without a request gets
    /// [`FIRST_REQUEST`], because one may be on its way.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        if self.drain.as_mut().is_some_and(|drain| drain.poll_unpin(cx).is_ready()) {
            self.drain = None;
        }
        let at = if self.requests > 0 { self.accepted } else { self.accepted + FIRST_REQUEST };
        self.drain.is_none().then_some(at)
    }
}

/// Polls `exchange` only while steps are left.
async fn in_steps(exchange: impl Future<Output = Ended>, steps: Rc<Cell<usize>>) -> Ended {
    let mut exchange = pin!(exchange);
    poll_fn(|cx| match steps.get().checked_sub(1) {
        Some(left) => {
            steps.set(left);
            exchange.as_mut().poll(cx)
        }
        None => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

enum Closing {
    Begun,
    Over,
}

impl<S, B> Http2<S>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    /// Serves one request. A stream that is reset ends the handler, as a closed connection does with HTTP/1.1.
    async fn exchange(
        self: Rc<Self>,
        request: ::http::Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        peer: SocketAddr,
        backlog: Rc<Backlog>,
    ) -> Ended {
        let _share = match self.requests.enter(peer.ip()) {
            Ok(share) => share,
            Err(full) => {
                response::refuse(&too_many(full), self.service, peer.ip(), respond);
                return match full {
                    // All places of the server are taken, perhaps by other clients. So this is not misuse.
                    Full::All => Ended::Answered,
                    Full::Client => Ended::Refused,
                };
            }
        };
        let is_head = request.method() == ::http::Method::HEAD;
        let expects = request.headers().contains_key(EXPECT) && !request.body().is_end_stream();
        let request = match request::of(request, peer, self.limits) {
            Ok(request) => request,
            Err(problem) => {
                response::refuse(&problem, self.service, peer.ip(), respond);
                return Ended::Refused;
            }
        };
        let mut expecting = request.extensions().get::<Rc<Exchange>>().filter(|_| expects).cloned();
        let mut handler = pin!(self.app.call(request));
        let answered = poll_fn(|cx| {
            if respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            let polled = handler.as_mut().poll(cx);
            // The handler reads the body.
            if polled.is_pending() && expecting.take_if(|exchange| !exchange.awaits_continue()).is_some() {
                let mut head = ::http::Response::new(());
                *head.status_mut() = ::http::StatusCode::CONTINUE;
                let _ = respond.send_informational(head);
            }
            polled.map(Some)
        });
        let sending = Pace::new(self.limits.min_rate, self.limits.grace);
        match answered.await {
            None => Ended::Reset,
            Some(Ok(answered)) => {
                response::send(answered.into_parts().1, respond, is_head, sending, &backlog).await
            }
            Some(Err(error)) => {
                response::send(error.error_response(), respond, is_head, sending, &backlog).await
            }
        }
    }
}

fn too_many(full: Full) -> Problem {
    match full {
        Full::All => Problem::unavailable(1),
        Full::Client => Problem::of_status(StatusCode::TOO_MANY_REQUESTS).retry_after(1),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn requests_without_a_step_left_take_theirs_in_the_next_turn() {
        let (steps, polled) = (Rc::new(Cell::new(2)), Cell::new(0));
        let mut running: FuturesUnordered<_> = (0..3)
            .map(|_| {
                let exchange = poll_fn(|_| {
                    polled.set(polled.get() + 1);
                    Poll::Pending
                });
                in_steps(exchange, steps.clone()).boxed_local()
            })
            .collect();
        let mut turn = || {
            assert!(running.poll_next_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
            polled.get()
        };
        assert_eq!(turn(), 2);
        steps.set(2);
        assert_eq!(turn(), 3);
    }
}
