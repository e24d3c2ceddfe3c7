//! One client connection, between the socket and actix. It hands requests to actix one at a time, and bounds
//! what a slow or hostile client costs. [`http2`] does the same for HTTP/2.
//!
//! | rule | because |
//! |---|---|
//! | A head arrives within [`ClientLimits::head_timeout`], and has at most [`ClientLimits::head_size`] bytes. | actix has a timeout for the first head of a connection only. |
//! | A head that can be read in two ways gets 400, and the connection closes. | Request smuggling. |
//! | The next request is not read before the response is written. | actix keeps one HEAD flag per connection: pipelined requests got wrong responses. |
//! | After a request with `Connection: close` or `upgrade`, nothing is served. What comes is read and discarded for a moment ([`linger`]). | RFC 9112 §9.6. |
//! | A client that waits for a 100 gets it when a handler reads the body ([`request_body`]). | actix sends it before a handler can refuse the request. |
//! | What follows a request for a WebSocket is kept, and passed on only after a 101. | Request smuggling. |
//! | A handler reads the body from the connection ([`request_body`]). actix gets only the head. | actix reads 128 KiB ahead, into a buffer that grows by copying. |
//! | Bodies arrive, and responses are taken, with [`ClientLimits::min_rate`]. | A slow client holds memory and a replica. |
//!
//! ```text
//! Head ──whole──► Body ──end──► Response ──written──► Head
//!   └──malformed, late, too large──► Refused: a problem document, then the connection closes
//! ```

mod body; // where the body of a request ends
mod direct; // writes a large body of a response
mod dormant; // connections without a request need little memory
mod head; // what a head says of its connection and body
mod http2; // the same for HTTP/2
mod idle; // idle connections, to close some when there are too many
mod linger; // closes without losing the response
mod pace; // minimum rate of a transfer
mod refusal; // the response to a request that actix never sees
mod request_body; // what a handler reads

pub use body::{Chunks, Malformed, Piece};

pub(super) use direct::MIN_SIZE as MIN_DIRECT_SIZE;
pub(super) use dormant::Lent;
pub(super) use http2::Http2;
pub(super) use idle::IdleConnections;
pub(super) use request_body::prepare as prepare_body;

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::web::{Buf as _, BufMut as _, Bytes, BytesMut};
use actix_web::{HttpMessage as _, HttpRequest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use self::body::{Framing, OfBody};
use self::direct::DirectBody;
use self::head::{Head, Verdict};
use self::idle::Place;
use self::linger::Linger;
use self::pace::Pace;
use self::refusal::Refusal;
use self::request_body::{Announced, BodySource};
use crate::alarm::Alarm;
use crate::problem::Problem;

/// The limits of one client.
#[derive(Debug, Clone, Copy)]
pub struct ClientLimits {
    /// The time from the first byte of a head to its last.
    pub head_timeout: Duration,
    /// The longest head, in bytes.
    pub head_size: usize,
    /// Bytes per second of bodies and responses.
    pub min_rate: u64,
    /// How long this side waits for the client before the rate counts.
    pub grace: Duration,
}

/// actix sends it before it calls a handler. The connection drops that one.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How long a connection may stay without a request. Our own clients reuse connections that were idle for less than
/// 30 s. So this side rarely closes a connection on which a client sends a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Bytes read at a time.
const READ_SIZE: usize = 8 * 1024;
/// The same for a body, after a read of a whole [`READ_SIZE`]. glibc returns larger blocks to the kernel when they are freed.
const LARGE_READ_SIZE: usize = 60 * 1024;

/// The current request of a connection: what the middleware and the connection tell each other.
#[derive(Debug, Default)]
pub struct Exchange {
    scheme: Scheme,
    /// Other requests use the connection meanwhile (HTTP/2).
    is_multiplexed: bool,
    /// The number of requests so far, with the current one.
    number: Cell<u64>,
    progress: Cell<Progress>,
    flushes: Cell<u64>,
    waits_for_flush: Cell<bool>,
    is_tunnel: Cell<bool>,
    /// Whether to drop the `100 Continue` that actix writes by itself.
    drops_continue: Cell<bool>,
    awaits_continue: Cell<bool>,
    /// What the head said of the body, and actix did not get.
    announced: Cell<Announced>,
    /// Where the handler reads the body.
    source: RefCell<Option<Weak<RefCell<dyn BodySource>>>>,
    /// There is a handler that may still read the body.
    has_reader: Cell<bool>,
    /// The request was read to its end.
    is_request_over: Cell<bool>,
    early: RefCell<Vec<u8>>,
    /// The body of the response, if the connection writes it itself and has not begun.
    direct: RefCell<Option<Box<DirectBody>>>,
    is_direct: Cell<bool>,
    label: RefCell<Option<Arc<str>>>,
    is_last: Cell<bool>,
    is_slow: Cell<bool>,
    /// When the connection became idle. `None` during a request, and for an HTTP/2 stream.
    idle_since: Cell<Option<Instant>>,
    is_evicted: Cell<bool>,
    /// The connection gives up its dispatcher when it is polled.
    becomes_dormant: Cell<bool>,
    has_left: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// How the client reached this program.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    #[default]
    Http,
    Https,
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

/// Ends the exchange when it is dropped: with the body of the response, after its last part is encoded, or written
/// directly.
#[derive(Debug)]
pub(super) struct Answering(Rc<Exchange>);

impl Scheme {
    /// The scheme of the connection of `request`.
    pub fn of(request: &HttpRequest) -> Self {
        Exchange::of(request).map_or(Self::Http, |exchange| exchange.scheme)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Exchange {
    /// The exchange of `request`; `None` without a connection, as in a test.
    pub fn of(request: &HttpRequest) -> Option<Rc<Self>> {
        let of_connection = request.conn_data::<Rc<Self>>().cloned();
        of_connection.or_else(|| request.extensions().get::<Rc<Self>>().cloned())
    }

    /// The exchange of one HTTP/2 stream.
    fn of_stream(scheme: Scheme) -> Self {
        Self { scheme, is_multiplexed: true, ..Self::default() }
    }

    pub(super) fn answering(exchange: Rc<Self>) -> Answering {
        Answering(exchange)
    }

    /// Counts the request under `label`: for a handler that serves many paths.
    pub fn count_under(&self, label: &Arc<str>) {
        *self.label.borrow_mut() = Some(label.clone());
    }

    pub(super) fn take_label(&self) -> Option<Arc<str>> {
        self.label.take()
    }

    /// Whether no request may follow on the connection.
    pub(super) fn is_last(&self) -> bool {
        self.is_last.get()
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

    /// Ready after the first flush that follows `mark`, a value of [`Exchange::flushes`]. actix discards encoded bytes when
    /// a body fails. A body waits here before it fails, so that the client gets the bytes that have arrived. With HTTP/2,
    /// and for a body that the connection writes itself, ready immediately.
    pub fn poll_flushed(&self, mark: u64) -> Poll<()> {
        self.waits_for_flush.set(true);
        let is_ready = self.is_multiplexed || self.is_direct.get() || self.flushes.get() > mark;
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the connection can write the body of a response itself, in place of actix. While it polls that body, nobody
    /// can read from it. So the handler must have read the whole request.
    pub(super) fn can_send_directly(&self) -> bool {
        !self.is_multiplexed && self.is_request_over.get()
    }

    /// The connection writes `body` after the head that actix writes next. The head announces `length`.
    pub(super) fn send_directly(&self, body: BoxBody, length: u64) {
        self.is_direct.set(true);
        *self.direct.borrow_mut() = Some(Box::new(DirectBody::new(body, length)));
    }

    /// Sends an informational head, such as 103, before the response.
    pub fn send_early(&self, head: &[u8]) {
        self.early.borrow_mut().extend_from_slice(head);
    }

    /// Whether the client waits for a 100 before it sends the body.
    pub fn awaits_continue(&self) -> bool {
        self.awaits_continue.get()
    }

    /// Call this when the response begins. Returns whether the connection closes afterwards. It does if a client still waits
    /// for a 100, which it does not get: it is unknown whether it sends its body. It also does if the request is not over,
    /// because the rest of its body may come late or never.
    pub(super) fn begin_response(&self) -> bool {
        let is_over = self.is_multiplexed || self.ends_request();
        let closes = self.awaits_continue.take() || !is_over;
        if closes {
            self.is_last.set(true);
        }
        closes
    }

    /// Whether the whole request has arrived, and a handler has read it or will not.
    fn ends_request(&self) -> bool {
        if self.is_request_over.get() || self.has_reader.get() {
            return self.is_request_over.get();
        }
        self.source().is_none_or(|source| source.borrow_mut().abandon_body())
    }

    fn source(&self) -> Option<Rc<RefCell<dyn BodySource>>> {
        self.source.borrow().as_ref()?.upgrade()
    }

    fn ask_for_body(&self) {
        // On HTTP/2, the task of the request sends it.
        if self.awaits_continue.take() && !self.is_multiplexed {
            self.send_early(CONTINUE);
        }
    }

    /// The response is a 101: from now on, bytes pass as they come, until the body of the response ends. Before it,
    /// nothing that follows the head is read as another protocol.
    pub fn open_tunnel(&self) {
        self.is_tunnel.set(true);
    }

    fn evict(&self) {
        self.is_evicted.set(true);
        self.wake();
    }

    /// The connection has been idle for a while.
    fn make_dormant(&self) {
        self.becomes_dormant.set(true);
        self.wake();
    }

    fn wake(&self) {
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

pub(super) struct Connection<T> {
    io: T,
    limits: ClientLimits,
    service: &'static str,
    peer: IpAddr,
    exchange: Rc<Exchange>,
    place: Place,
    /// Bytes that the client has sent, and that neither actix nor a handler has read.
    input: BytesMut,
    /// The number of bytes at the front of `input` that actix may read.
    cleared: usize,
    state: State,
    /// The last read found nothing. The task of the connection continues when the client sends something.
    waits_for_client: bool,
    /// The last read of the body was one of at least [`READ_SIZE`].
    is_fast: bool,
    /// The handler has begun to read the body.
    is_being_read: bool,
    /// Why the socket cannot be read any more. actix does not know it yet.
    failure: Option<io::Error>,
    /// No more input is read: the client has closed its side, or exceeded a limit.
    has_ended: bool,
    alarm: Alarm,
    receiving: Pace,
    sending: Pace,
    linger: Linger,
    /// The body that the connection is writing itself.
    direct: Option<Box<DirectBody>>,
}

enum State {
    /// The connection is between requests, or within a head.
    Head {
        /// The deadline for the first byte of the head, and then for its last.
        deadline: Instant,
        /// Bytes of `input` that do not hold the end of the head.
        scanned: usize,
    },
    Body(Framing),
    Response,
    Refused(Refusal),
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    pub(super) fn new(
        io: T,
        peer: IpAddr,
        scheme: Scheme,
        service: &'static str,
        limits: ClientLimits,
        idle: &Rc<IdleConnections>,
    ) -> Self {
        let now = Instant::now();
        let exchange = Rc::new(Exchange { scheme, idle_since: Cell::new(Some(now)), ..Exchange::default() });
        Self {
            io,
            limits,
            service,
            peer,
            place: idle.enter(exchange.clone()),
            exchange,
            input: BytesMut::new(),
            cleared: 0,
            state: State::Head { deadline: now + IDLE_TIMEOUT, scanned: 0 },
            waits_for_client: false,
            is_fast: false,
            is_being_read: false,
            failure: None,
            has_ended: false,
            alarm: Alarm::default(),
            receiving: Pace::new(limits.min_rate, limits.grace),
            sending: Pace::new(limits.min_rate, limits.grace),
            linger: Linger::default(),
            direct: None,
        }
    }

    pub(super) fn exchange(&self) -> Rc<Exchange> {
        self.exchange.clone()
    }

    /// Continues as far as `input` allows. Returns whether that changed anything.
    fn advance(&mut self) -> bool {
        match &mut self.state {
            State::Head { .. } if self.input.is_empty() => false,
            State::Head { .. } => self.judge(),
            State::Response if self.exchange.is_tunnel.get() => {
                self.cleared = self.input.len();
                self.cleared > 0
            }
            State::Response
                if !self.exchange.is_last() && self.exchange.progress.get() == Progress::Written =>
            {
                let now = Instant::now();
                self.state = State::Head { deadline: now + IDLE_TIMEOUT, scanned: 0 };
                if self.input.is_empty() {
                    self.become_idle(now);
                }
                true
            }
            State::Body(_) | State::Response | State::Refused(_) => false,
        }
    }

    /// There is no byte of the next request.
    fn become_idle(&mut self, now: Instant) {
        self.input = BytesMut::new();
        self.exchange.idle_since.set(Some(now));
        self.place.became_idle(&self.exchange, now);
    }

    fn judge(&mut self) -> bool {
        // RFC 9112 §2.2: empty lines before a request are ignored.
        while self.input.starts_with(b"\r\n") {
            self.input.advance(2);
        }
        if self.input.is_empty() {
            self.become_idle(Instant::now());
            return false;
        }
        let State::Head { deadline, scanned } = &mut self.state else { return false };
        let (from, size) = (*scanned, self.input.len());
        if from == 0 {
            self.exchange.idle_since.set(None);
        }
        *scanned = size;
        // Parsing again after every byte would cost a slow client little, and this server much.
        let verdict = match from == 0 || head::ends_after(&self.input, from) {
            true => head::judge(&self.input),
            false => Verdict::Incomplete,
        };
        if from == 0 && matches!(verdict, Verdict::Incomplete) {
            *deadline = Instant::now() + self.limits.head_timeout;
        }
        match verdict {
            Verdict::Incomplete if size < self.limits.head_size => return false,
            Verdict::Whole(head) if head.length <= self.limits.head_size => {
                self.accept(head);
            }
            Verdict::Incomplete | Verdict::Whole(_) => {
                self.refuse(&Problem::of_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
            }
            Verdict::Refused(problem) => self.refuse(&problem),
        }
        true
    }

    /// actix gets the head that `input` begins with. In place of the line that announces a body, it gets one that says that
    /// there is none.
    fn accept(&mut self, head: Head) {
        const NO_BODY: &[u8] = b"content-length:0";
        if let Some((zero, name)) = NO_BODY.split_last()
            && !head.announcement.is_empty()
        {
            let line = &mut self.input[head.announcement.clone()];
            line.fill(b' ');
            line[..name.len()].copy_from_slice(name);
            line[line.len() - 1] = *zero;
        }
        self.cleared = head.length;
        self.begin(head);
    }

    fn begin(&mut self, head: Head) {
        self.exchange.idle_since.set(None);
        self.exchange.number.set(self.exchange.number.get() + 1);
        self.exchange.progress.set(Progress::Running);
        self.exchange.is_direct.set(false);
        self.exchange.announced.set(head.framing.announced());
        self.exchange.is_request_over.set(head.framing == Framing::None);
        self.exchange.has_reader.set(false);
        (self.is_fast, self.is_being_read) = (false, false);
        self.exchange.is_last.set(self.exchange.is_last() || head.is_last);
        self.receiving.restart();
        self.sending.restart();
        self.state = match head.framing {
            Framing::None => State::Response,
            framing => State::Body(framing),
        };
    }

    /// Whether a tunnel has ended. What the client still sends is for nobody.
    fn is_tunnel_over(&self) -> bool {
        self.exchange.is_tunnel.get() && self.exchange.progress.get() != Progress::Running
    }

    fn refuse(&mut self, problem: &Problem) {
        let is_head = self.input.trim_ascii_start().starts_with(b"HEAD ");
        self.state = State::Refused(Refusal::new(problem, self.service, self.peer, is_head));
    }

    /// Reads from the socket: a head without a body straight to actix, everything else into `input`.
    fn poll_socket(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !(matches!(self.state, State::Head { .. }) && self.input.is_empty()) {
            return self.poll_input(cx).map_ok(drop);
        }
        let before = out.filled().len();
        ready!(self.poll_io(cx, out))?;
        let came = &out.filled()[before..];
        match head::judge(came) {
            Verdict::Whole(head) if head.length <= self.limits.head_size => {
                if head.length == came.len() && head.framing == Framing::None {
                    self.begin(head);
                    return Poll::Ready(Ok(()));
                }
                self.input.extend_from_slice(came);
                self.accept(head);
            }
            _ => self.input.extend_from_slice(came),
        }
        out.set_filled(before);
        Poll::Ready(Ok(()))
    }

    /// Appends to `input` what has arrived, which needs no memory if that is nothing. Returns the number of bytes.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = [MaybeUninit::uninit(); READ_SIZE];
        let mut read = ReadBuf::uninit(&mut buffer);
        ready!(self.poll_io(cx, &mut read))?;
        self.input.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    fn poll_io(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, out).map(or_end);
        self.waits_for_client = polled.is_pending();
        ready!(polled)?;
        self.has_read(out.filled().len() - before);
        Poll::Ready(Ok(()))
    }

    fn has_read(&mut self, bytes: usize) {
        self.receiving.moved(bytes);
        if bytes == 0 {
            self.has_ended = true;
            self.exchange.has_left.set(true);
        }
    }

    /// Reads a part of a body into `input`. Its memory can be used again when the handler has finished with the part before.
    fn poll_body_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let size = if self.is_fast { LARGE_READ_SIZE } else { READ_SIZE };
        match self.input.try_reclaim(size) || !self.input.is_empty() {
            true => self.input.reserve(size),
            false => self.input = BytesMut::with_capacity(size),
        }
        let mut input = (&mut self.input).limit(size);
        let polled = poll_read_buf(Pin::new(&mut self.io), cx, &mut input).map(or_end);
        self.waits_for_client = polled.is_pending();
        match polled {
            Poll::Ready(read) => {
                let read = read?;
                self.is_fast = read >= READ_SIZE;
                self.has_read(read);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                Poll::Pending
            }
        }
    }

    /// The whole request was read. `input` may hold the next one.
    fn end_request(&mut self) {
        self.state = State::Response;
        self.exchange.is_request_over.set(true);
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write(cx, bytes) {
            Poll::Ready(written) => {
                self.sending.moved(*written.as_ref().unwrap_or(&0));
                Poll::Ready(written)
            }
            Poll::Pending => self.sending.poll_timeout(cx),
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

    /// Writes the body that actix does not write, if there is one; ready at its end.
    fn poll_direct(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(direct) = &mut self.direct {
            ready!(direct.poll(Pin::new(&mut self.io), &mut self.sending, cx))?;
            self.direct = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the client has been silent too long: it is then refused, or the input ends. Never ready while the
    /// response is sent.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.state {
            State::Head { deadline, .. } => {
                if self.exchange.is_evicted.get() && self.input.is_empty() {
                    self.has_ended = true;
                    return Poll::Ready(());
                }
                self.exchange.wake_with(cx.waker());
                ready!(self.alarm.poll(cx, *deadline));
                match self.input.is_empty() {
                    true => self.has_ended = true,
                    false => self.refuse(&Problem::of_status(StatusCode::REQUEST_TIMEOUT)),
                }
            }
            State::Body(_) => {
                ready!(self.receiving.poll_late(cx));
                self.exchange.is_slow.set(true);
                self.has_ended = true;
            }
            State::Response | State::Refused(_) => return Poll::Pending,
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> BodySource for Connection<T> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        loop {
            let State::Body(framing) = &mut self.state else { return Poll::Ready(None) };
            self.is_being_read = true;
            let part = match framing.take(&mut self.input) {
                Ok(OfBody::Part(part)) => Some(Ok(part)),
                Ok(OfBody::End) => None,
                Ok(OfBody::Incomplete) if self.has_ended => Some(Err(PayloadError::Incomplete(None))),
                Ok(OfBody::Incomplete) => {
                    match self.poll_body_input(cx) {
                        Poll::Ready(read) => read?,
                        Poll::Pending => ready!(self.poll_timeout(cx)),
                    }
                    continue;
                }
                // It is unknown where the body ends.
                Err(error) => {
                    self.input.clear();
                    self.has_ended = true;
                    Some(Err(PayloadError::Incomplete(Some(io::Error::other(error)))))
                }
            };
            if matches!(&self.state, State::Body(framing) if framing.is_over()) {
                self.end_request();
                // From now on the task waits until the client leaves, or sends another request.
                let next = if self.input.is_empty() { self.poll_input(cx) } else { Poll::Ready(Ok(0)) };
                if let Poll::Ready(read) = next {
                    self.failure = read.err();
                    cx.waker().wake_by_ref();
                }
            }
            return Poll::Ready(part);
        }
    }

    fn abandon_body(&mut self) -> bool {
        let State::Body(framing) = &mut self.state else { return true };
        while let Ok(OfBody::Part(_)) = framing.take(&mut self.input) {}
        let has_arrived = framing.is_over();
        if !has_arrived {
            self.input.clear();
        }
        self.end_request();
        has_arrived
    }
}

impl<T> Drop for Connection<T> {
    /// The body holds the exchange, which holds the body if the connection has not begun with it.
    fn drop(&mut self) {
        self.exchange.direct.take();
    }
}

/// rustls reports an error if the client closes without close_notify. Here it is the end of the input: the framing
/// detects a truncated body, and a running handler continues.
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
            if let Some(failure) = this.failure.take() {
                return Poll::Ready(Err(failure));
            }
            if let State::Refused(refusal) = &mut this.state {
                return refusal.poll(&mut this.io, cx).map(|()| Ok(()));
            }
            if this.is_tunnel_over() {
                return Poll::Ready(Ok(()));
            }
            if this.advance() {
                continue;
            }
            if matches!(this.state, State::Body(_)) {
                // The handler reads it. Until it begins, the connection reads a little of it, and notices if the client leaves.
                if this.is_being_read || this.has_ended || this.input.len() >= READ_SIZE {
                    return Poll::Pending;
                }
                ready!(this.poll_input(cx))?;
                continue;
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
        if this.exchange.drops_continue.take() && bytes.starts_with(CONTINUE) {
            return Poll::Ready(Ok(CONTINUE.len()));
        }
        ready!(this.poll_early(cx))?;
        if let Some(direct) = this.exchange.direct.take() {
            this.direct = Some(direct);
        }
        if let Some(head) = this.direct.as_mut().and_then(|direct| direct.open_head()) {
            head.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(this.poll_direct(cx))?;
        this.poll_send(cx, bytes)
    }

    /// actix calls this when its buffer is empty.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_early(cx))?;
        ready!(this.poll_direct(cx))?;
        // TLS keeps bytes that the client does not take.
        match Pin::new(&mut this.io).poll_flush(cx) {
            Poll::Ready(flushed) => this.sending.moved(flushed.map(|()| 0)?),
            Poll::Pending => {
                return this.sending.poll_timeout(cx);
            }
        }
        this.exchange.flushes.set(this.exchange.flushes.get() + 1);
        if this.exchange.waits_for_flush.take() {
            cx.waker().wake_by_ref();
        }
        if this.exchange.progress.get() == Progress::Answered {
            this.exchange.progress.set(Progress::Written);
            // If the task waits for the socket, that is enough, unless the next request is here.
            let is_idle = this.waits_for_client && this.advance() && this.input.is_empty() && !this.has_ended;
            if !(is_idle && this.poll_timeout(cx).is_pending()) {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A connection between requests has no response that could be lost.
        let is_idle =
            !this.exchange.is_last() && (this.has_ended || this.exchange.idle_since.get().is_some());
        match is_idle {
            true => Pin::new(&mut this.io).poll_shutdown(cx),
            false => this.linger.poll(&mut this.io, cx).map(Ok),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use actix_web::body::BodyStream;
    use actix_web::web::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

    const LIMITS: ClientLimits = ClientLimits {
        head_timeout: Duration::from_secs(5),
        head_size: 1024,
        min_rate: 1024,
        grace: Duration::from_secs(5),
    };

    fn connection<T: AsyncRead + AsyncWrite + Unpin>(io: T) -> Connection<T> {
        let peer = IpAddr::from([127, 0, 0, 1]);
        Connection::new(io, peer, Scheme::Http, "a-service", LIMITS, &Rc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_closed_75_seconds_after_its_last_response() {
        let (mut client, server) = tokio::io::duplex(1024);
        let mut connection = connection(server);
        let mut read = [0; 1024];
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let length = connection.read(&mut read).await.unwrap();
            assert!(read[..length].starts_with(b"GET / "));
            drop(Exchange::answering(connection.exchange()));
            tokio::time::sleep(Duration::from_secs(7)).await;
            connection.flush().await.unwrap();
        }
        let answered = Instant::now();
        assert_eq!(connection.read(&mut read).await.unwrap(), 0);
        assert_eq!(answered.elapsed().as_secs(), 75);
    }

    #[tokio::test]
    async fn the_response_to_a_request_for_another_protocol_is_not_lost_if_more_was_sent() {
        let (mut client, server) = tokio::io::duplex(1024);
        let mut connection = connection(server);
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        client.write_all(head).await.unwrap();
        connection.read_exact(&mut vec![0; head.len()]).await.unwrap();
        drop(Exchange::answering(connection.exchange()));
        connection.flush().await.unwrap();
        client.write_all(b"GET /next HTTP/1.1\r\n").await.unwrap();
        let client = async move {
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "the gateway has ended its side");
            client.shutdown().await.unwrap();
            client
        };
        let (closed, _client) = tokio::join!(connection.shutdown(), client);
        closed.unwrap();
        let left = connection.io.read(&mut [0; 1]).await.unwrap();
        assert_eq!(left, 0, "the kernel would reset the connection because of unread bytes");
    }

    /// The next part of the body, as a handler reads it.
    async fn part<T: AsyncRead + AsyncWrite + Unpin>(connection: &mut Connection<T>) -> Option<Bytes> {
        poll_fn(|cx| connection.poll_body(cx)).await.transpose().unwrap()
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// A head with the line that announces a body.
    fn announcing(line: &str) -> String {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\nX: b\r\n\r\n")
    }

    /// Reads a head as actix does.
    async fn read_head<T: AsyncRead + AsyncWrite + Unpin>(connection: &mut Connection<T>) {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            connection.read_exact(&mut byte).await.unwrap();
            head.extend(byte);
        }
    }

    #[tokio::test]
    async fn actix_gets_only_the_head_and_a_handler_the_body_however_they_arrive() {
        for (line, body, no_body) in [
            ("Content-Length: 5", "Wiki!", "content-length: 0"),
            ("A:5\r\ncontent-length:5", "Wiki!", "A:5\r\ncontent-length:0"),
            (
                "transfer-encoding: chunked",
                "4\r\nWiki\r\n1;x\r\n!\r\n0\r\nT: x\r\n\r\n",
                "content-length:          0",
            ),
        ] {
            let (sent, expected) = (announcing(line) + body + GET, announcing(no_body));
            for size in [1, 7, 40, sent.len()] {
                let (mut client, server) = tokio::io::duplex(4096);
                let mut connection = connection(server);
                let sent = sent.clone();
                let sending = async {
                    for bytes in sent.as_bytes().chunks(size) {
                        client.write_all(bytes).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                };
                let reading = async {
                    let mut head = vec![0; expected.len()];
                    connection.read_exact(&mut head).await.unwrap();
                    assert_eq!(String::from_utf8(head).unwrap(), expected, "{size}");
                    let early = poll_fn(|cx| {
                        Poll::Ready(Pin::new(&mut connection).poll_read(cx, &mut ReadBuf::new(&mut [0; 9])))
                    });
                    assert!(early.await.is_pending(), "the body is for the handler");
                    let mut body = Vec::new();
                    while let Some(part) = part(&mut connection).await {
                        body.extend_from_slice(&part);
                    }
                    assert_eq!(body, b"Wiki!", "{size}");
                    drop(Exchange::answering(connection.exchange()));
                    connection.flush().await.unwrap();
                    let mut next = vec![0; GET.len()];
                    connection.read_exact(&mut next).await.unwrap();
                    assert_eq!(String::from_utf8(next).unwrap(), GET, "{size}");
                };
                tokio::join!(sending, reading);
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_nobody_reads_is_skipped_if_it_has_arrived_and_else_the_connection_closes() {
        let chunks = announcing("Transfer-Encoding: chunked") + "1\r\nx\r\n0\r\n\r\n";
        for (request, closes) in [
            (announcing("Content-Length: 5") + "Wiki!" + GET, false),
            (announcing("Content-Length: 5") + "Wiki", true),
            (chunks.clone() + GET, false),
            (chunks[..chunks.len() - 1].to_owned(), true),
            (GET.to_owned(), false),
        ] {
            let (mut client, server) = tokio::io::duplex(4096);
            let connection = Rc::new(RefCell::new(connection(server)));
            let exchange = connection.borrow().exchange();
            exchange
                .source
                .replace(Some(Rc::downgrade(&(connection.clone() as Rc<RefCell<dyn BodySource>>))));
            client.write_all(request.as_bytes()).await.unwrap();
            let mut read = [0; 1024];
            let head = poll_fn(|cx| {
                Pin::new(&mut *connection.borrow_mut()).poll_read(cx, &mut ReadBuf::new(&mut read))
            });
            head.await.unwrap();
            exchange.has_reader.set(true);
            let is_get = request == GET;
            assert_eq!(exchange.ends_request(), is_get, "a handler may still read it");
            exchange.has_reader.set(false);
            assert_eq!(exchange.begin_response(), closes, "{request}");
            assert_eq!(exchange.is_last(), closes);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_body_that_nobody_has_read_the_connection_looks_for_the_next_request() {
        let (mut client, server) = tokio::io::duplex(4096);
        let mut connection = connection(server);
        client.write_all((announcing("Content-Length: 5") + "Wiki!").as_bytes()).await.unwrap();
        read_head(&mut connection).await;
        assert!(connection.abandon_body());
        drop(Exchange::answering(connection.exchange()));
        let mut polls = 0;
        let woken = poll_fn(|cx| {
            polls += 1;
            if polls > 1 {
                return Poll::Ready(());
            }
            assert!(Pin::new(&mut connection).poll_flush(cx).is_ready());
            Poll::Pending
        });
        let began = Instant::now();
        woken.await;
        assert_eq!(began.elapsed(), Duration::ZERO, "nobody reads from the socket");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_or_is_malformed_is_an_error_and_ends_the_connection() {
        for (request, expected) in [
            (announcing("Content-Length: 5") + "Wiki", "Incomplete(None"),
            (announcing("Transfer-Encoding: chunked") + "5\r\nWiki", "Incomplete(None"),
            (announcing("Transfer-Encoding: chunked") + "4\r\nWiki!\r\n", "Incomplete(Some"),
        ] {
            let (mut client, server) = tokio::io::duplex(4096);
            let mut connection = connection(server);
            client.write_all(request.as_bytes()).await.unwrap();
            drop(client);
            read_head(&mut connection).await;
            assert_eq!(part(&mut connection).await.unwrap(), "Wiki");
            let mut next = async || poll_fn(|cx| connection.poll_body(cx)).await.unwrap();
            let error = next().await.unwrap_err();
            assert!(format!("{error:?}").starts_with(expected), "{error:?}");
            assert!(next().await.is_err(), "it does not become whole");
            assert!(!connection.abandon_body(), "the connection closes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_take_the_encrypted_rest_of_its_response_is_disconnected() {
        let mut connection = connection(Stuck);
        let flushed = poll_fn(|cx| Pin::new(&mut connection).poll_flush(cx));
        let flushed = tokio::time::timeout(Duration::from_secs(60), flushed).await;
        assert_eq!(flushed.expect("it waits").unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    /// Takes all that is written, and records how much with each write.
    #[derive(Default)]
    struct Recorder {
        writes: Vec<usize>,
        bytes: Vec<u8>,
    }

    impl AsyncRead for Recorder {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Recorder {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            parts: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let written = parts.iter().map(|part| part.len()).sum();
            parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
            self.writes.push(written);
            Poll::Ready(Ok(written))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A connection that has sent a head and a body of `parts`, which announces `length` bytes; and how that ended.
    async fn after_direct(
        parts: Vec<Result<Bytes, io::Error>>,
        length: u64,
    ) -> (Connection<Recorder>, io::Result<()>) {
        let mut connection = connection(Recorder::default());
        let body = BodyStream::new(futures_util::stream::iter(parts));
        connection.exchange().send_directly(BoxBody::new(body), length);
        connection.write_all(b"head ").await.unwrap();
        assert!(connection.io.writes.is_empty(), "the head waits for the body");
        let flushed = connection.flush().await;
        (connection, flushed)
    }

    #[tokio::test]
    async fn a_head_is_written_together_with_the_first_part_of_a_large_body() {
        let part = Bytes::from(vec![b'x'; 100_000]);
        let (connection, flushed) = after_direct(vec![Ok(part.clone()), Ok(part)], 200_000).await;
        flushed.unwrap();
        assert_eq!(connection.io.writes, [100_005, 100_000]);
    }

    #[tokio::test]
    async fn a_client_gets_what_a_body_has_sent_before_it_fails_and_then_the_connection_ends() {
        let failed = || Err(io::Error::other("the replica is gone"));
        let part = || Ok(Bytes::from_static(b"body"));
        for (parts, length) in [
            (vec![part(), failed()], 8),
            (vec![part()], 8), // shorter than announced
            (vec![part(), Ok("longer".into())], 8),
        ] {
            let (connection, flushed) = after_direct(parts, length).await;
            assert!(flushed.is_err());
            assert_eq!(connection.io.bytes, b"head body");
        }
    }

    #[tokio::test]
    async fn a_body_that_was_never_begun_is_dropped_with_its_connection() {
        let connection = connection(Recorder::default());
        let exchange = connection.exchange();
        let answering = Exchange::answering(exchange.clone());
        let body = futures_util::stream::once(async move {
            drop(answering);
            Ok::<_, io::Error>(Bytes::new())
        });
        exchange.send_directly(BoxBody::new(BodyStream::new(Box::pin(body))), 1);
        drop(connection);
        assert_eq!(exchange.progress.get(), Progress::Answered);
        assert_eq!(Rc::strong_count(&exchange), 1);
    }

    #[tokio::test]
    async fn a_large_body_is_read_into_one_buffer_in_parts_that_the_handler_asks_for() {
        const BODY: usize = 1 << 20;
        let (mut client, server) = tokio::io::duplex(2 * BODY);
        let mut connection = connection(server);
        client.write_all(announcing(&format!("Content-Length: {BODY}")).as_bytes()).await.unwrap();
        client.write_all(&vec![b'x'; BODY]).await.unwrap();
        read_head(&mut connection).await;
        let mut parts = Vec::new();
        while let Some(part) = part(&mut connection).await {
            parts.push((part.as_ptr(), part.len()));
        }
        assert_eq!(parts.iter().map(|(_, length)| length).sum::<usize>(), BODY);
        let large = &parts[2..parts.len() - 1];
        assert!(large.iter().all(|part| *part == (large[0].0, LARGE_READ_SIZE)), "{parts:?}");
    }
}
