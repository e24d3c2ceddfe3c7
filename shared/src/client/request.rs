//! Builds a call, and runs its attempts.

use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::http::header::HeaderValue;
use serde::Serialize;
use uuid::Uuid;

use super::probe::{outcome, probe};
use super::{ClientError, Context, ServiceClient};
use crate::balancer::{PickError, PickedReplica, ReplicaKey};
use crate::http::{Call, ExchangeError, IDEMPOTENCY_KEY, Response, exchange};
use crate::metrics;
use crate::resilience::Budget;
use crate::resilience::retry::{Attempts, Decision, Failure, Request, is_safe};
use crate::trace::{Recording, SpanKind};

/// Total time of a call, including retries.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits for a replica to register, and for a query of the registry. All services start at the same time,
/// so the first calls may be early, or know only some of the replicas.
const REPLICA_WAIT: Duration = Duration::from_secs(1);

struct Attempt {
    result: Result<Response, ClientError>,
    /// The failure about which the retry policy decides, if there is one.
    failure: Option<Failure>,
    /// The replica cannot be reached, and this side is not the reason.
    is_refused: bool,
}

/// Builder of one call.
#[must_use]
pub struct RequestBuilder<'a> {
    client: &'a ServiceClient,
    method: Method,
    path: String,
    context: Context,
    person: Option<Uuid>,
    body: Option<String>,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    idempotent: bool,
    timeout: Duration,
    /// Why the call cannot be sent; returned by [`RequestBuilder::send`].
    fault: Option<String>,
}

impl<'a> RequestBuilder<'a> {
    pub(super) fn new(client: &'a ServiceClient, method: Method, path: String) -> Self {
        Self {
            client,
            idempotent: is_safe(&method),
            method,
            path,
            context: Context::background(),
            person: None,
            body: None,
            content_type: "application/json",
            headers: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
            fault: None,
        }
    }

    /// Propagates the request id, trace and deadline of `context`.
    pub fn context(mut self, context: &Context) -> Self {
        self.context = context.clone();
        self
    }

    /// Makes the call on behalf of this person.
    pub fn person(mut self, person: Uuid) -> Self {
        self.person = Some(person);
        self
    }

    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_string(body) {
            Ok(body) => self.body = Some(body),
            Err(error) => self.fault = Some(error.to_string()),
        }
        self
    }

    /// A body that is JSON already.
    pub fn json_text(mut self, body: String) -> Self {
        self.body = Some(body);
        self
    }

    /// Replaces the content type `application/json`.
    pub fn content_type(mut self, content_type: &'static str) -> Self {
        self.content_type = content_type;
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        if HeaderValue::from_str(&value).is_err() {
            self.fault = Some(format!("{name} has a value that is not allowed in a header"));
        }
        self.headers.push((name, value));
        self
    }

    /// Sends an `Idempotency-Key`, and so allows retries.
    pub fn idempotency_key(self, key: impl Into<String>) -> Self {
        self.header(IDEMPOTENCY_KEY, key).idempotent()
    }

    /// Allows retries of a call that is idempotent without a key.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Total time including retries; 5 s by default. The caller's deadline may end the call earlier.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub async fn send(mut self) -> Result<Response, ClientError> {
        let service = self.client.service().to_owned();
        if let Some(fault) = self.fault.take() {
            return Err(ClientError::Malformed(service, fault));
        }
        let time = self.context.remaining().map_or(self.timeout, |left| left.min(self.timeout));
        if time.is_zero() {
            return Err(ClientError::TimedOut(service));
        }
        let end = Instant::now() + time;
        let Ok(_permit) = self.client.limiter.enter().await else {
            return Err(ClientError::Busy(service));
        };
        self.attempts(end).await
    }

    async fn attempts(self, end: Instant) -> Result<Response, ClientError> {
        let client = self.client;
        client.pool.wait_until_available(replica_wait(end)).await;
        client.budget.record_request(Instant::now());
        let request = Request {
            idempotent: self.idempotent,
            body_buffered: true,
            outermost: self.context.is_outermost(),
        };
        let (mut attempts, mut tried, mut unreachable) = (Attempts::default(), Vec::new(), Vec::new());
        let (mut last, mut has_refreshed) = (None, false);
        let mut picked = self.pick(&tried, &unreachable)?;
        loop {
            let key = picked.key();
            tried.push(key);
            let Attempt { result, failure, is_refused } = self.attempt(picked, end, &attempts, last).await;
            let Some(failure) = failure else { return result };
            last = Some(failure);
            if failure == Failure::Unreachable {
                unreachable.push(key);
            }
            let service = client.service();
            let is_allowed =
                wait_for_retry(service, &mut attempts, request, failure, end, &client.budget).await;
            let next = match is_allowed {
                true => self.pick(&tried, &unreachable),
                false if is_refused => Err(ClientError::Unavailable(service.to_owned())),
                false => return result,
            };
            picked = match next {
                Err(ClientError::Unavailable(_)) if is_refused && !has_refreshed => {
                    has_refreshed = true;
                    client.pool.refresh(replica_wait(end)).await;
                    self.pick(&tried, &unreachable)?
                }
                next => next?,
            };
        }
    }

    /// Picks a replica that was not tried yet. If there is none, picks a tried replica that was reachable.
    fn pick(&self, tried: &[ReplicaKey], unreachable: &[ReplicaKey]) -> Result<PickedReplica, ClientError> {
        let ServiceClient { pool, picker, .. } = self.client;
        if !self.idempotent {
            probe(pool);
        }
        let pick = |excluded| match self.idempotent {
            true => pool.pick(picker, None, excluded, Instant::now()),
            false => pool.pick_without_probe(picker, None, excluded, Instant::now()),
        };
        let picked = pick(tried).or_else(|why| match why {
            PickError::NoCandidate => pick(unreachable),
            PickError::AllBusy => Err(why),
        });
        let service = || self.client.service().to_owned();
        picked.map_err(|why| match why {
            PickError::NoCandidate => ClientError::Unavailable(service()),
            PickError::AllBusy => ClientError::Busy(service()),
        })
    }

    /// Makes one attempt.
    async fn attempt(
        &self,
        mut picked: PickedReplica,
        end: Instant,
        attempts: &Attempts,
        last: Option<Failure>,
    ) -> Attempt {
        let name = self.client.service();
        let service = || name.to_owned();
        let time = end.saturating_duration_since(Instant::now());
        let exchanged = exchange(self.call(&picked, time, attempts, last)).await;
        picked.record(outcome(&exchanged, time), Instant::now());
        let is_refused = matches!(exchanged, Err(ExchangeError::Unreachable(_)));
        let (result, failure) = match exchanged {
            Ok(response) => {
                let status = response.status;
                let failed = status.is_server_error().then_some(Failure::Answered(status));
                (Ok(response), failed)
            }
            Err(ExchangeError::Unreachable(why)) => {
                log::debug!(peer_service = name, error = why; "a replica cannot be reached");
                (Err(ClientError::Unavailable(service())), Some(Failure::Unreachable))
            }
            Err(ExchangeError::Local(why)) => {
                metrics::local_failure(name, &why);
                (Err(ClientError::Unavailable(service())), Some(Failure::Unreachable))
            }
            Err(ExchangeError::Broken(why)) => {
                log::debug!(peer_service = name, error = why; "a connection broke");
                (Err(ClientError::Broken(service())), Some(Failure::Reset))
            }
            Err(ExchangeError::TimedOut) => (Err(ClientError::TimedOut(service())), Some(Failure::TimedOut)),
            Err(ExchangeError::TooLarge) => {
                let why = "the answer is too large".to_owned();
                (Err(ClientError::Malformed(service(), why)), None)
            }
        };
        Attempt { result, failure, is_refused }
    }

    fn call(
        &self,
        picked: &PickedReplica,
        time: Duration,
        attempts: &Attempts,
        last: Option<Failure>,
    ) -> Call {
        let url = format!("{}{}", picked.instance().url, self.path);
        let token = self.client.tokens.mint(self.client.service(), self.person);
        let mut span = self.context.start_span(SpanKind::Client, "HTTP");
        span.record(|span| {
            describe_attempt(span, self.client.service(), &picked.instance().id, attempts, last);
        });
        let call = Call::new(self.method.clone(), url, time).to_peer(picked.peer_tls()).bearer(token);
        let mut call = call.traced(span);
        let mine = self.headers.iter().map(|(name, value)| (*name, value.clone()));
        for (name, value) in self.context.headers(time, attempts.count()).into_iter().chain(mine) {
            call = call.header(name, value);
        }
        match &self.body {
            Some(body) => call.body(self.content_type, body.clone()),
            None => call,
        }
    }
}

/// How long a call with the deadline `end` waits for a replica.
fn replica_wait(end: Instant) -> Duration {
    REPLICA_WAIT.min(end.saturating_duration_since(Instant::now()))
}

/// Sets the attributes of an attempt: which replica, which attempt, and why there was another one before.
pub fn describe_attempt(
    span: &mut Recording<'_>,
    service: &str,
    replica: &str,
    attempts: &Attempts,
    last: Option<Failure>,
) {
    span.set("peer.service", service.to_owned());
    span.set("peer.service.instance.id", replica.to_owned());
    span.set("http.request.resend_count", i64::from(attempts.count()));
    if let Some(last) = last {
        span.set("retry.reason", last.to_string());
    }
}

/// Asks the retry policy about a failed attempt. If it allows a retry, counts the retry, waits until it is due, and
/// returns `true`.
pub async fn wait_for_retry(
    service: &str,
    attempts: &mut Attempts,
    request: Request,
    failure: Failure,
    end: Instant,
    budget: &Budget,
) -> bool {
    let now = Instant::now();
    match attempts.decide(request, failure, end.saturating_duration_since(now), budget, now) {
        Decision::Again(pause) => {
            metrics::retry(service, failure);
            tokio::time::sleep(pause).await;
            true
        }
        Decision::GiveUp => false,
    }
}
