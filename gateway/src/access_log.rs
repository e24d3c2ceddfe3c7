//! What the gateway adds to the log line of a request. The README has the table of fields and flags.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_web::dev;
use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use actix_web::{HttpMessage as _, HttpRequest};
use futures_util::Stream;
use shared::problem::{Problem, codes};
use shared::service::{End, Field, LogFields, Sent, millis};
use uuid::Uuid;

use crate::address::text_of;
use crate::engine::{Ended, Outcome, UpstreamError};

/// Why a request was not served, in Envoy's letters where it has them. `LF`, `SC`, `BL` and `DR` are our own.
pub mod flags {
    pub const NO_ROUTE: &str = "NR";
    /// No replica is healthy.
    pub const NO_REPLICA: &str = "UH";
    /// The limit of the service, the route or each replica is reached, and the queue is full or too slow.
    pub const OVERFLOW: &str = "UO";
    /// No connection to a replica.
    pub const CONNECT_FAILURE: &str = "UF";
    /// The connection to the replica broke.
    pub const RESET: &str = "UC";
    /// The replica's answer is not HTTP.
    pub const MALFORMED_ANSWER: &str = "UPE";
    /// The replica did not answer in time.
    pub const TIMEOUT: &str = "UT";
    /// The client left.
    pub const CLIENT_GONE: &str = "DC";
    /// The request is malformed.
    pub const MALFORMED_REQUEST: &str = "DPE";
    pub const RATE_LIMITED: &str = "RL";
    /// No token, a bad one, or not the role that the route wants.
    pub const UNAUTHORIZED: &str = "UAEX";
    /// No connection can be made here: no descriptor or port is left, or the name has no address.
    pub const LOCAL_FAILURE: &str = "LF";
    /// The client sent its body too slowly.
    pub const SLOW_CLIENT: &str = "SC";
    /// The body is longer than the route allows.
    pub const BODY_LIMIT: &str = "BL";
    /// Nothing was sent on a WebSocket for too long.
    pub const IDLE: &str = "SI";
    /// A WebSocket has lasted as long as it may.
    pub const TOO_OLD: &str = "DT";
    /// The gateway has closed a WebSocket, because it stops or its route is gone.
    pub const DRAINED: &str = "DR";
}

/// Collects the fields while the request is served.
#[derive(Debug)]
pub struct AccessLog {
    client: IpAddr,
    person: Cell<Option<Uuid>>,
    replica: RefCell<String>,
    attempts: Cell<u64>,
    attempt_since: Cell<Instant>,
    upstream: Cell<Duration>,
    received: Cell<u64>,
    tunnel: RefCell<Option<Rc<Outcome>>>,
    /// Why the body of the response broke off.
    broken: Cell<Option<&'static str>>,
}

impl AccessLog {
    /// `None` if the log of requests is off.
    pub fn begin(request: &HttpRequest, client: impl FnOnce() -> IpAddr) -> Option<Rc<dyn LogFields>> {
        if !log::log_enabled!(target: "request", log::Level::Info) {
            return None;
        }
        let log = Rc::new(Self::of_client(client()));
        request.extensions_mut().insert(log.clone());
        Some(log)
    }

    fn of_client(client: IpAddr) -> Self {
        Self {
            client,
            person: Cell::default(),
            replica: RefCell::default(),
            attempts: Cell::default(),
            attempt_since: Cell::new(Instant::now()),
            upstream: Cell::default(),
            received: Cell::default(),
            tunnel: RefCell::default(),
            broken: Cell::default(),
        }
    }

    /// The log that has begun with the request.
    pub fn of(request: &HttpRequest) -> Option<Rc<Self>> {
        request.extensions().get::<Rc<Self>>().cloned()
    }

    pub fn client(&self) -> IpAddr {
        self.client
    }

    pub fn set_person(&self, person: Option<Uuid>) {
        self.person.set(person);
    }

    /// An attempt begins.
    pub fn begin_attempt(&self, service: &str, instance: &str) {
        *self.replica.borrow_mut() = [service, "/", instance].concat();
        self.attempts.set(self.attempts.get() + 1);
        self.attempt_since.set(Instant::now());
    }

    /// The attempt has ended: the head of the answer is here, or there is none.
    pub fn end_attempt(&self) {
        self.upstream.set(self.upstream.get() + self.attempt_since.get().elapsed());
    }

    /// The answer is a WebSocket.
    pub fn set_tunnel(&self, outcome: Rc<Outcome>) {
        *self.tunnel.borrow_mut() = Some(outcome);
    }

    /// The body of the response has broken off.
    pub fn body_broke(&self, error: &UpstreamError) {
        self.broken.set(Some(flag_of_error(error)));
    }

    /// The same body, counted.
    pub fn counting(self: &Rc<Self>, payload: dev::Payload) -> dev::Payload {
        dev::Payload::Stream { payload: Box::pin(Counting { payload, log: self.clone() }) }
    }

    /// Once: they are taken out.
    fn common(&self) -> Vec<(&'static str, Field)> {
        let mut fields = Vec::with_capacity(8);
        let mut text = |name, text: Option<String>| {
            if let Some(text) = text {
                fields.push((name, Field::Text(text)));
            }
        };
        text("client", Some(text_of(self.client)));
        text("person", self.person.get().map(|person| person.to_string()));
        text("replica", Some(self.replica.take()).filter(|replica| !replica.is_empty()));
        if self.attempts.get() > 0 {
            fields.push(("attempts", Field::Number(self.attempts.get())));
            fields.push(("upstream_ms", Field::Millis(millis(self.upstream.get()))));
        }
        let tunnel = self.tunnel.borrow().as_ref().map_or(0, |outcome| outcome.received.get());
        fields.push(("bytes_in", Field::Number(self.received.get() + tunnel)));
        fields
    }
}

impl LogFields for AccessLog {
    fn fields(&self, sent: Sent, problem: Option<&Problem>) -> Vec<(&'static str, Field)> {
        let mut fields = self.common();
        fields.push(("bytes_out", Field::Number(sent.bytes)));
        let flag = match (&*self.tunnel.borrow(), sent.end) {
            (Some(outcome), _) => flag_of_tunnel(outcome.ended.get()),
            (None, End::ClientGone) => Some(flags::CLIENT_GONE),
            (None, End::Broken) => Some(self.broken.get().unwrap_or(flags::RESET)),
            (None, End::Whole) => {
                problem.and_then(|problem| problem.flag().or_else(|| flag_of_code(problem.code())))
            }
        };
        if let Some(flag) = flag {
            fields.push(("flag", Field::Name(flag)));
        }
        fields
    }
}

pub fn flag_of_error(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Unreachable(_) => flags::CONNECT_FAILURE,
        UpstreamError::Local(_) => flags::LOCAL_FAILURE,
        UpstreamError::Stale | UpstreamError::Unanswered | UpstreamError::Reset(_) => flags::RESET,
        UpstreamError::Malformed(_) => flags::MALFORMED_ANSWER,
        UpstreamError::TimedOut(_) => flags::TIMEOUT,
        UpstreamError::Client(_) => flags::CLIENT_GONE,
        UpstreamError::SlowClient => flags::SLOW_CLIENT,
    }
}

fn flag_of_tunnel(ended: Ended) -> Option<&'static str> {
    match ended {
        Ended::Properly => None,
        Ended::ByClient => Some(flags::CLIENT_GONE),
        Ended::ByReplica => Some(flags::RESET),
        Ended::Idle => Some(flags::IDLE),
        Ended::TooOld => Some(flags::TOO_OLD),
        Ended::Drained => Some(flags::DRAINED),
    }
}

/// The flag of a problem that has only one reason.
fn flag_of_code(code: &str) -> Option<&'static str> {
    let codes = [
        (codes::NOT_FOUND, flags::NO_ROUTE),
        (codes::RATE_LIMITED, flags::RATE_LIMITED),
        (codes::MISSING_TOKEN, flags::UNAUTHORIZED),
        (codes::INVALID_TOKEN, flags::UNAUTHORIZED),
        (codes::EXPIRED_TOKEN, flags::UNAUTHORIZED),
        (codes::FORBIDDEN, flags::UNAUTHORIZED),
        (codes::MALFORMED_REQUEST, flags::MALFORMED_REQUEST),
        (codes::URI_TOO_LONG, flags::MALFORMED_REQUEST),
        (codes::REQUEST_TIMEOUT, flags::SLOW_CLIENT),
        (codes::BODY_TOO_LARGE, flags::BODY_LIMIT),
    ];
    codes.iter().find(|(known, _)| known.name() == code).map(|(_, flag)| *flag)
}

struct Counting {
    payload: dev::Payload,
    log: Rc<AccessLog>,
}

impl Stream for Counting {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let part = ready!(Pin::new(&mut self.payload).poll_next(cx));
        if let Some(Ok(bytes)) = &part {
            self.log.received.set(self.log.received.get() + bytes.len() as u64);
        }
        Poll::Ready(part)
    }
}
