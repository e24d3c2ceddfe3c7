//! A call being put together, and its attempts.

use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::http::header::HeaderValue;
use serde::Serialize;
use uuid::Uuid;

use super::{ClientError, Context, ServiceClient};
use crate::balancer::{Hold, NoReplica, ReplicaKey, RequestOutcome};
use crate::http::{Call, ExchangeError, IDEMPOTENCY_KEY, Response, exchange, retry_after};
use crate::metrics;
use crate::resilience::retry::{Attempts, Decision, Failure, Request, is_safe};

/// How long a call may take in all, unless the caller says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits for the first replica to appear: a stack starts all at once.
const FIRST_REPLICA: Duration = Duration::from_secs(1);
/// A replica that had less time than this is not blamed for missing a deadline.
const FAIR: Duration = Duration::from_millis(500);

/// A call being put together.
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
    repeatable: bool,
    timeout: Duration,
    /// Why it cannot be sent.
    fault: Option<String>,
}

impl<'a> RequestBuilder<'a> {
    pub(super) fn new(client: &'a ServiceClient, method: Method, path: String) -> Self {
        Self {
            client,
            repeatable: is_safe(&method),
            method,
            path,
            context: Context::background(),
            person: None,
            body: None,
            content_type: "application/json",
            headers: Vec::new(),
            timeout: TIMEOUT,
            fault: None,
        }
    }

    /// Makes this call part of the request behind `context`.
    pub fn context(mut self, context: &Context) -> Self {
        self.context = context.clone();
        self
    }

    /// Acts for this person.
    pub fn person(mut self, person: Uuid) -> Self {
        self.person = Some(person);
        self
    }

    /// Sends `body` as JSON.
    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_string(body) {
            Ok(body) => self.body = Some(body),
            Err(error) => self.fault = Some(error.to_string()),
        }
        self
    }

    /// Says that the body is of another JSON type.
    pub fn content_type(mut self, content_type: &'static str) -> Self {
        self.content_type = content_type;
        self
    }

    /// Sends a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        if HeaderValue::from_str(&value).is_err() {
            self.fault = Some(format!("{name} has a value that no header can have"));
        }
        self.headers.push((name, value));
        self
    }

    /// Sends an `Idempotency-Key`, with which the call may be tried again.
    pub fn idempotency_key(self, key: impl Into<String>) -> Self {
        self.header(IDEMPOTENCY_KEY, key).repeatable()
    }

    /// Says that the callee notices repetitions by itself.
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// Allows so much time in all, instead of 5 s; the caller's deadline counts too.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// Any [`ClientError`]; an answer of any status is none.
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
        client.pool.available(FIRST_REPLICA.min(end.saturating_duration_since(Instant::now()))).await;
        client.budget.request(Instant::now());
        let request =
            Request { repeatable: self.repeatable, replayable: true, outermost: self.context.is_outermost() };
        let (mut attempts, mut tried, mut unreachable) = (Attempts::default(), Vec::new(), Vec::new());
        loop {
            let hold = self.pick(&tried, &unreachable)?;
            let key = hold.key();
            tried.push(key);
            let (result, failure) = self.attempt(hold, end, &attempts).await;
            let Some(failure) = failure else { return result };
            if failure == Failure::Unreachable {
                unreachable.push(key);
            }
            let now = Instant::now();
            let left = end.saturating_duration_since(now);
            match attempts.decide(request, failure, left, &client.budget, now) {
                Decision::Again(pause) => {
                    metrics::retry(client.service(), failure);
                    tokio::time::sleep(pause).await;
                }
                Decision::GiveUp => return result,
            }
        }
    }

    /// A replica that was not tried yet. If there is none, one that could be reached may do better the
    /// second time.
    fn pick(&self, tried: &[ReplicaKey], unreachable: &[ReplicaKey]) -> Result<Hold, ClientError> {
        let ServiceClient { pool, picker, .. } = self.client;
        let now = Instant::now();
        let picked = pool.pick(picker, None, tried, now).or_else(|why| match why {
            NoReplica::None => pool.pick(picker, None, unreachable, now),
            NoReplica::Busy => Err(why),
        });
        let service = || self.client.service().to_owned();
        picked.map_err(|why| match why {
            NoReplica::None => ClientError::Unavailable(service()),
            NoReplica::Busy => ClientError::Busy(service()),
        })
    }

    /// One attempt, and how it failed if another might go better.
    async fn attempt(
        &self,
        mut hold: Hold,
        end: Instant,
        attempts: &Attempts,
    ) -> (Result<Response, ClientError>, Option<Failure>) {
        let name = self.client.service();
        let service = || name.to_owned();
        let time = end.saturating_duration_since(Instant::now());
        let (outcome, result, failure) = match exchange(self.call(&hold, time, attempts)).await {
            Ok(response) => {
                let status = response.status;
                let failed = status.is_server_error().then_some(Failure::Answered(status));
                let outcome =
                    RequestOutcome::Answered { status, retry_after: retry_after(&response.headers) };
                (outcome, Ok(response), failed)
            }
            Err(ExchangeError::Unreachable(why)) => {
                log::debug!(service = name, why; "a replica cannot be reached");
                let unavailable = Err(ClientError::Unavailable(service()));
                (RequestOutcome::Unreachable, unavailable, Some(Failure::Unreachable))
            }
            Err(ExchangeError::Broken(why)) => {
                log::debug!(service = name, why; "a connection broke");
                (RequestOutcome::Reset, Err(ClientError::Broken(service())), Some(Failure::Reset))
            }
            Err(ExchangeError::TimedOut) => {
                let outcome = if time < FAIR { RequestOutcome::OwnFault } else { RequestOutcome::TimedOut };
                (outcome, Err(ClientError::TimedOut(service())), Some(Failure::TimedOut))
            }
            Err(ExchangeError::TooLarge) => {
                let why = "the answer is too large".to_owned();
                (RequestOutcome::OwnFault, Err(ClientError::Malformed(service(), why)), None)
            }
        };
        hold.record(outcome, Instant::now());
        (result, failure)
    }

    fn call(&self, hold: &Hold, time: Duration, attempts: &Attempts) -> Call {
        let url = format!("{}{}", hold.instance().url, self.path);
        let token = self.client.tokens.mint(self.client.service(), self.person);
        let mut call = Call::new(self.method.clone(), url, time).bearer(token);
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
