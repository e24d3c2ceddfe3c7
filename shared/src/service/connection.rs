//! One client connection, between the socket and actix. It hands requests to actix one at a time, and bounds
//! what a slow or hostile client costs.
//!
//! | rule | because |
//! |---|---|
//! | A head arrives within [`ClientLimits::head_timeout`], and has at most [`ClientLimits::head_size`] bytes. | actix has a timeout for the first head of a connection only. |
//! | A head that can be read in two ways gets 400, and the connection closes. | Request smuggling. |
//! | The next request is not read before the response is written. | actix keeps one HEAD flag per connection: pipelined requests got wrong responses. |
//! | After a request with `Connection: close`, nothing is read. | RFC 9112 §9.6. |
//! | Bodies arrive, and responses are taken, with [`ClientLimits::min_rate`]. | A slow client holds memory and a replica. |
//!
//! ```text
//! Head ──whole──► Body ──end──► Response ──written──► Head
//!   └──malformed, late, too large──► Refused: a problem document, then the connection closes
//! ```

mod body; // where the body of a request ends
mod head; // what a head says of its connection and body
mod idle; // idle connections, to close some when there are too many
mod pace; // minimum rate of a transfer
mod refusal; // the response to a request that actix never sees

pub use body::{Chunks, Malformed, Piece};

pub(super) use idle::IdleConnections;

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use self::body::Framing;
use self::head::Verdict;
use self::pace::Pace;
use self::refusal::Refusal;
use crate::alarm::Alarm;
use crate::problem::Problem;

/// What a client may cost.
#[derive(Debug, Clone, Copy)]
pub struct ClientLimits {
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// In bytes.
    pub head_size: usize,
    /// Bytes per second of bodies and responses.
    pub min_rate: u64,
    /// How long this side waits for the client before the rate counts.
    pub grace: Duration,
}

/// How long a connection may stay without a request. Longer than clients keep idle connections (30 s), so that
/// clients close first.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long the rest of a body is read after its response.
const REST_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes read at a time.
const READ_SIZE: usize = 8 * 1024;

/// The current request of a connection: what the middleware and the connection tell each other.
#[derive(Debug, Default)]
pub struct Exchange {
    progress: Cell<Progress>,
    flushes: Cell<u64>,
    waits_for_flush: Cell<bool>,
    early: RefCell<Vec<u8>>,
    is_slow: Cell<bool>,
    is_evicted: Cell<bool>,
    has_left: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Progress {
    #[default]
    Running,
    /// The response is encoded.
    Answered,
    /// The response is in the socket.
    Written,
}

/// Ends the exchange when it is dropped: with the body of the response, after its last part is encoded.
#[derive(Debug)]
pub(super) struct Answering(Rc<Exchange>);

impl Exchange {
    pub(super) fn answering(exchange: Rc<Self>) -> Answering {
        Answering(exchange)
    }

    /// Whether the body of the request came too slowly, and the rest of it is not read.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow.get()
    }

    /// Whether the client has closed its side of the connection. It may still read the response.
    pub(super) fn has_left(&self) -> bool {
        self.has_left.get()
    }

    /// The number of times that everything encoded has reached the socket.
    pub fn flushes(&self) -> u64 {
        self.flushes.get()
    }

    /// Ready after the first flush since [`Exchange::flushes`] was `mark`. actix drops what is encoded when a body
    /// fails; a body that waits here first lets the client have what came.
    pub fn poll_flushed(&self, mark: u64) -> Poll<()> {
        self.waits_for_flush.set(true);
        if self.flushes.get() > mark { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Sends an informational head, such as 103, before the response.
    pub fn send_early(&self, head: &[u8]) {
        self.early.borrow_mut().extend_from_slice(head);
    }

    fn evict(&self) {
        self.is_evicted.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wake_with(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.progress.set(Progress::Answered);
    }
}

/// See the module.
pub(super) struct Connection<T> {
    io: Take<T>,
    limits: ClientLimits,
    service: &'static str,
    exchange: Rc<Exchange>,
    idle: Rc<IdleConnections>,
    /// Its place in `idle`.
    place: Option<u64>,
    /// What the client has sent and actix has not read.
    input: BytesMut,
    /// How many bytes at the front of `input` actix may read.
    cleared: usize,
    state: State,
    /// No request may follow the current one.
    is_last: bool,
    /// When the rest of a body is no longer read that comes after its response.
    rest_until: Option<Instant>,
    /// The client sends nothing more, or is not listened to.
    has_ended: bool,
    alarm: Alarm,
    receiving: Pace,
    sending: Pace,
}

enum State {
    /// Between requests, or within a head.
    Head {
        /// Of the head, or of the first byte on a new connection. `None` between requests: then actix's
        /// keep-alive timer counts.
        deadline: Option<Instant>,
        /// Bytes of `input` that do not hold the end of the head.
        scanned: usize,
    },
    Body(Framing),
    Response,
    Refused(Refusal),
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    pub(super) fn new(io: T, service: &'static str, limits: ClientLimits, idle: Rc<IdleConnections>) -> Self {
        let exchange = Rc::new(Exchange::default());
        Self {
            io: io.take(u64::MAX),
            limits,
            service,
            place: Some(idle.enter(exchange.clone())),
            exchange,
            idle,
            input: BytesMut::new(),
            cleared: 0,
            state: State::Head { deadline: Some(Instant::now() + IDLE_TIMEOUT), scanned: 0 },
            is_last: false,
            rest_until: None,
            has_ended: false,
            alarm: Alarm::default(),
            receiving: Pace::new(limits.min_rate, limits.grace),
            sending: Pace::new(limits.min_rate, limits.grace),
        }
    }

    pub(super) fn exchange(&self) -> Rc<Exchange> {
        self.exchange.clone()
    }

    /// Goes on as far as `input` allows. Returns whether that changed anything.
    fn advance(&mut self) -> bool {
        match &mut self.state {
            State::Head { .. } if self.input.is_empty() => false,
            State::Head { .. } => self.judge(),
            State::Body(framing) => {
                match framing.advance(&self.input) {
                    Ok((length, over)) => {
                        self.cleared = length;
                        if over {
                            self.state = State::Response;
                        }
                        length > 0 || over
                    }
                    // It is unknown where the body ends: actix sees a body that breaks off.
                    Err(Malformed) => {
                        self.input.clear();
                        self.is_last = true;
                        !std::mem::replace(&mut self.has_ended, true)
                    }
                }
            }
            State::Response if !self.is_last && self.exchange.progress.get() == Progress::Written => {
                self.state = State::Head { deadline: None, scanned: 0 };
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                    self.place = Some(self.idle.enter(self.exchange.clone()));
                }
                true
            }
            State::Response | State::Refused(_) => false,
        }
    }

    fn judge(&mut self) -> bool {
        // RFC 9112 §2.2: empty lines before a request are ignored.
        while self.input.starts_with(b"\r\n") {
            self.input.advance(2);
        }
        if self.input.is_empty() {
            return false;
        }
        let State::Head { deadline, scanned } = &mut self.state else { return false };
        let (from, size) = (*scanned, self.input.len());
        if from == 0 {
            *deadline = Some(Instant::now() + self.limits.head_timeout);
            self.place.take().into_iter().for_each(|place| self.idle.leave(place));
        }
        *scanned = size;
        // Parsing again after every byte would cost a slow client little, and this server much.
        let verdict = match from == 0 || head::ends_after(&self.input, from) {
            true => head::judge(&self.input),
            false => Verdict::Incomplete,
        };
        match verdict {
            Verdict::Incomplete if size < self.limits.head_size => return false,
            Verdict::Whole(head) if head.length <= self.limits.head_size => {
                self.cleared = head.length;
                self.is_last |= head.is_last;
                self.exchange.progress.set(Progress::Running);
                self.rest_until = None;
                self.receiving.restart();
                self.sending.restart();
                self.state = match head.framing {
                    Framing::None => State::Response,
                    framing => State::Body(framing),
                };
            }
            Verdict::Incomplete | Verdict::Whole(_) => {
                self.refuse(&Problem::of_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
            }
            Verdict::Refused(problem) => self.refuse(&problem),
        }
        true
    }

    /// Whether a body goes on too long after its response: actix reads it to the end, however long that takes.
    fn is_unwanted(&mut self) -> bool {
        let is_answered = self.exchange.progress.get() != Progress::Running;
        if !(is_answered && matches!(self.state, State::Body(_))) {
            return false;
        }
        let now = Instant::now();
        now >= *self.rest_until.get_or_insert(now + REST_TIMEOUT)
    }

    fn refuse(&mut self, problem: &Problem) {
        self.state = State::Refused(Refusal::new(problem, self.service));
    }

    /// Reads from the socket: a body of known length straight to actix, everything else into `input`.
    fn poll_socket(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let read = match &mut self.state {
            State::Body(Framing::Length(left)) if self.input.is_empty() => {
                self.io.set_limit(*left);
                or_end(ready!(Pin::new(&mut self.io).poll_read(cx, out)))?;
                let read = out.filled().len() - before;
                *left -= read as u64;
                if *left == 0 {
                    self.state = State::Response;
                }
                read
            }
            _ => {
                self.io.set_limit(u64::MAX);
                self.input.reserve(READ_SIZE);
                or_end(ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input)))?
            }
        };
        self.receiving.moved(read);
        if read == 0 {
            self.has_ended = true;
            self.exchange.has_left.set(true);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(self.io.get_mut()).poll_write(cx, bytes) {
            Poll::Ready(written) => {
                self.sending.moved(*written.as_ref().unwrap_or(&0));
                Poll::Ready(written)
            }
            Poll::Pending => self.sending.poll_late(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Sends the informational heads.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let exchange = self.exchange.clone();
        let mut early = exchange.early.borrow_mut();
        while !early.is_empty() {
            let written = ready!(self.poll_send(cx, &early))?;
            early.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// The client sends nothing now. Ready if it has had its time.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.state {
            State::Head { deadline, .. } => {
                if self.exchange.is_evicted.get() && self.input.is_empty() {
                    self.has_ended = true;
                    return Poll::Ready(());
                }
                self.exchange.wake_with(cx.waker());
                let Some(deadline) = *deadline else { return Poll::Pending };
                ready!(self.alarm.poll(cx, deadline));
                match self.input.is_empty() {
                    true => self.has_ended = true,
                    false => self.refuse(&Problem::of_status(StatusCode::REQUEST_TIMEOUT)),
                }
            }
            State::Body(_) => {
                ready!(self.receiving.poll_late(cx));
                self.exchange.is_slow.set(true);
                (self.has_ended, self.is_last) = (true, true);
            }
            State::Response | State::Refused(_) => return Poll::Pending,
        }
        Poll::Ready(())
    }
}

/// The end of a TLS connection that its client just closed is an error for rustls, and the end of the input here: the
/// framing finds out what is missing. As an error, it would end the handler that runs.
fn or_end<R: Default>(read: io::Result<R>) -> io::Result<R> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(R::default()),
        read => read,
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        loop {
            if this.cleared > 0 {
                let length = this.cleared.min(out.remaining());
                out.put_slice(&this.input[..length]);
                this.input.advance(length);
                this.cleared -= length;
            }
            if out.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            if let State::Refused(refusal) = &mut this.state {
                return refusal.poll(this.io.get_mut(), cx).map(|()| Ok(()));
            }
            if this.advance() {
                continue;
            }
            if this.is_unwanted() {
                (this.has_ended, this.is_last) = (true, true);
            }
            let waits = matches!(this.state, State::Response) && !this.input.is_empty();
            match (this.has_ended, waits) {
                (true, false) => return Poll::Ready(Ok(())),
                // The next request is read when the response is written.
                (_, true) if this.has_ended || this.input.len() >= READ_SIZE => return Poll::Pending,
                _ => {}
            }
            match this.poll_socket(cx, out) {
                Poll::Ready(read) => read?,
                Poll::Pending => ready!(this.poll_timeout(cx)),
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_early(cx))?;
        this.poll_send(cx, bytes)
    }

    /// actix calls this when its buffer is empty.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_early(cx))?;
        // TLS keeps bytes that the client does not take.
        match Pin::new(this.io.get_mut()).poll_flush(cx) {
            Poll::Ready(flushed) => this.sending.moved(flushed.map(|()| 0)?),
            Poll::Pending => {
                return this.sending.poll_late(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
            }
        }
        this.exchange.flushes.set(this.exchange.flushes.get() + 1);
        if this.exchange.waits_for_flush.take() {
            cx.waker().wake_by_ref();
        }
        if this.exchange.progress.get() == Progress::Answered {
            this.exchange.progress.set(Progress::Written);
            // The next request is here already, or this is to be known as idle.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().io.get_mut()).poll_shutdown(cx)
    }
}

impl<T> Drop for Connection<T> {
    fn drop(&mut self) {
        self.place.take().into_iter().for_each(|place| self.idle.leave(place));
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Encrypts what is written, and cannot send it.
    struct Stuck;

    impl AsyncRead for Stuck {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_take_the_encrypted_rest_of_its_response_is_disconnected() {
        let (head_timeout, grace) = (Duration::from_secs(5), Duration::from_secs(5));
        let limits = ClientLimits { head_timeout, head_size: 1024, min_rate: 1024, grace };
        let mut connection = Connection::new(Stuck, "a-service", limits, Rc::default());
        let flushed = poll_fn(|cx| Pin::new(&mut connection).poll_flush(cx));
        let flushed = tokio::time::timeout(Duration::from_secs(60), flushed).await;
        assert_eq!(flushed.expect("it waits").unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
