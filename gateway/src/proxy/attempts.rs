//! The attempts of a request: pick a replica, send, and retry by the policy in [`shared::resilience::retry`].

use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use shared::balancer::{Instance, PickError, PickedReplica, ReplicaKey, RequestOutcome};
use shared::client::{ATTEMPT_HEADER, describe_attempt, probe, wait_for_retry};
use shared::metrics;
use shared::problem::Problem;
use shared::resilience::Deadline;
use shared::resilience::retry::{self, Attempts, Failure};
use shared::service::Exchange;
use shared::trace::{Span, SpanKind, Traceparent};

use super::body::broken_body;
use super::{canary, headers};
use crate::access_log::{AccessLog, flag_of_error, flags};
use crate::engine::{Body, Engine, Request, Response, UpstreamError};
use crate::policies::versions::Split;
use crate::routing::Route;

/// The parts of a request that are equal in every attempt.
pub struct Plan {
    /// The head, without deadline and retry attempt.
    pub head: Vec<u8>,
    /// The key for consistent hashing.
    pub affinity: String,
    /// The version of the service that the request is for.
    pub version: Option<String>,
    /// Sending it twice has the same effect as sending it once.
    pub idempotent: bool,
    /// A WebSocket is wanted.
    pub is_upgrade: bool,
    /// The response has no body.
    pub is_head: bool,
    /// The client waits for a 100 before it sends the body.
    pub awaits_continue: bool,
    /// The client's connection, for informational responses.
    pub client: Option<Rc<Exchange>>,
    /// Longest time without a byte sent or received, until the head of the response is complete.
    pub head_timeout: Duration,
    /// End of the time for sending the request's body.
    pub upload_end: Instant,
    /// Deadline of the whole exchange.
    pub end: Instant,
    /// The request does not count toward the limit of a replica's requests in flight.
    pub lasts_long: bool,
    pub log: Option<Rc<AccessLog>>,
}

/// A response, and the replica that gives it.
type Answer = (Response, PickedReplica);

enum Ended {
    Answered(Answer),
    /// The retry policy decides. If there is no retry, the client gets the response, if any, or the problem.
    Failed(Failure, Problem, Option<Answer>),
    /// No retry: no replica is left, or each has as many requests as it may.
    NoReplica(Problem),
    /// No retry: the client's body failed.
    ClientFailed(Problem),
}

/// Sends the request until a replica responds without a retryable failure, or the policy gives up.
pub async fn run(engine: &Engine, route: &Route, plan: Plan, body: Body) -> Result<Answer, Problem> {
    route.service_limits.budget.record_request(Instant::now());
    let body_buffered = matches!(body, Body::None | Body::Kept(_));
    let properties = retry::Request { idempotent: plan.idempotent, body_buffered, outermost: true };
    let mut plan = plan;
    let head = std::mem::take(&mut plan.head);
    let common = head.len();
    let mut request = Request {
        head,
        body,
        is_upgrade: plan.is_upgrade,
        is_head: plan.is_head,
        awaits_continue: plan.awaits_continue,
        head_timeout: plan.head_timeout,
        client: plan.client.clone(),
        upload_end: plan.upload_end,
        end: plan.end,
    };
    let mut attempts = Attempts::default();
    let mut tried = Tried::default();
    if let (Some(split), Some(version)) = (&route.split, &plan.version) {
        tried = Tried::of(route, split, version);
    }
    let mut last: Option<(Failure, Problem, Option<Answer>)> = None;
    loop {
        request.head.truncate(common);
        let previous = Previous { attempts: &attempts, reason: last.as_ref().map(|(failure, ..)| *failure) };
        let ended = attempt(engine, route, &plan, &mut request, &mut tried, previous).await;
        let (failure, problem, answer) = match ended {
            Ended::Answered(answer) => return Ok(answer),
            Ended::Failed(failure, problem, answer) => (failure, problem, answer),
            Ended::ClientFailed(problem) => return Err(problem),
            // The failure of the previous attempt is more useful than "no replica is left".
            Ended::NoReplica(problem) => {
                let (problem, answer) =
                    last.map_or((problem, None), |(_, problem, answer)| (problem, answer));
                return answer.ok_or(problem);
            }
        };
        let (service, budget) = (&route.entry.service, &route.service_limits.budget);
        let retry = wait_for_retry(service, &mut attempts, properties, failure, plan.end, budget);
        if !Box::pin(retry).await {
            return answer.ok_or(problem);
        }
        last = Some((failure, problem, answer));
    }
}

/// The attempts so far.
struct Previous<'a> {
    attempts: &'a Attempts,
    /// How the last one failed.
    reason: Option<Failure>,
}

/// Adds the headers that differ between attempts.
pub(super) fn add_attempt_headers(head: &mut Vec<u8>, left: Duration, attempts: &Attempts, span: &Span) {
    let (milliseconds, mut digits) =
        (u64::try_from(left.as_millis()).unwrap_or(u64::MAX), itoa::Buffer::new());
    headers::line(head, Deadline::NAME, digits.format(milliseconds).as_bytes());
    headers::line(head, ATTEMPT_HEADER, digits.format(attempts.count()).as_bytes());
    if span.context().is_valid() {
        headers::line(head, "traceparent", Traceparent::of(span.context()).as_bytes());
        let state = span.context().trace_state().header();
        if !state.is_empty() {
            headers::line(head, "tracestate", state.as_bytes());
        }
    }
}

async fn attempt(
    engine: &Engine,
    route: &Route,
    plan: &Plan,
    request: &mut Request,
    tried: &mut Tried,
    previous: Previous<'_>,
) -> Ended {
    let now = Instant::now();
    let mut picked = match pick_replica(route, plan, tried, now) {
        Ok(picked) => picked,
        Err(PickError::NoCandidate) => {
            return Ended::NoReplica(Problem::unavailable(1).flagged(flags::NO_REPLICA));
        }
        Err(PickError::AllBusy) => return Ended::NoReplica(Problem::unavailable(1).flagged(flags::OVERFLOW)),
    };
    if plan.lasts_long {
        picked.exempt_from_limit();
    }
    tried.keys.push(picked.key());
    let time = plan.end.saturating_duration_since(now);
    if let Some(log) = &plan.log {
        log.begin_attempt(&route.entry.service, &picked.instance().id);
    }
    let mut span = start_span(request, &route.entry.service, picked.instance(), &previous);
    add_attempt_headers(&mut request.head, time, previous.attempts, &span);
    let mut exchanged = engine.exchange(picked.instance().authority(), picked.peer_tls(), request).await;
    span.record(|span| match &exchanged {
        Ok(answer) => {
            span.set("http.response.status_code", i64::from(answer.status.as_u16()));
            if answer.status.is_client_error() || answer.status.is_server_error() {
                span.fail(answer.status.as_u16().to_string());
            }
        }
        Err(error) => span.fail(flag_of_error(error)),
    });
    drop(span);
    if let Some(log) = &plan.log {
        log.end_attempt();
    }
    if let Some(split) = &route.split {
        canary::record(split, route, &picked, &mut exchanged, time);
    }
    match exchanged {
        Ok(answer) => {
            let outcome =
                RequestOutcome::Answered { status: answer.status, retry_after: answer.retry_after() };
            picked.record(outcome.within(time), Instant::now());
            match answer.status.as_u16() {
                502..=504 => {
                    let problem = Problem::of_status(answer.status);
                    Ended::Failed(Failure::Answered(answer.status), problem, Some((answer, picked)))
                }
                _ => Ended::Answered((answer, picked)),
            }
        }
        Err(error) => {
            if matches!(error, UpstreamError::Stale | UpstreamError::Unanswered) {
                // The same replica may be tried again, with a new connection.
                tried.keys.pop();
            }
            failed(&route.entry.service, error, picked)
        }
    }
}

/// The replicas that a request goes to no more.
#[derive(Default)]
struct Tried {
    keys: Vec<ReplicaKey>,
    /// How many at the front get no requests of clients: the mirror, for example.
    barred: usize,
    /// How many of the next ones are of another version than the one wanted.
    others: usize,
}

impl Tried {
    fn of(route: &Route, split: &Split, version: &str) -> Self {
        let serving = split.serving();
        let serves = |instance: &Instance| instance.version().is_some_and(|one| serving.contains(&one));
        let mut keys = route.pool.keys_not_matching(serves);
        let barred = keys.len();
        if route.pool.has_version(version) {
            keys.extend(route.pool.keys_not_matching(|one| one.version() == Some(version) || !serves(one)));
        }
        let others = keys.len() - barred;
        Self { keys, barred, others }
    }
}

/// Picks a replica that was not tried. If no replica of the wanted version is left, picks one of another version that gets
/// requests.
fn pick_replica(
    route: &Route,
    plan: &Plan,
    tried: &mut Tried,
    now: Instant,
) -> Result<PickedReplica, PickError> {
    match pick(route, plan, &tried.keys, now) {
        Err(PickError::NoCandidate) if tried.others > 0 => {
            let others = std::mem::take(&mut tried.others);
            tried.keys.drain(tried.barred..tried.barred + others);
            pick(route, plan, &tried.keys, now)
        }
        picked => picked,
    }
}

fn pick(route: &Route, plan: &Plan, tried: &[ReplicaKey], now: Instant) -> Result<PickedReplica, PickError> {
    let (pool, picker, affinity) = (&route.pool, &route.picker, Some(plan.affinity.as_str()));
    if plan.idempotent {
        return pool.pick(picker, affinity, tried, now);
    }
    probe(pool);
    pool.pick_without_probe(picker, affinity, tried, now)
}

fn start_span(request: &Request, service: &str, instance: &Instance, previous: &Previous<'_>) -> Span {
    let mut span = Span::child(SpanKind::Client, "HTTP");
    span.record(|span| {
        let method = request.head.split(|byte| *byte == b' ').next().unwrap_or_default();
        span.request(&String::from_utf8_lossy(method), None);
        let (host, port) = instance.authority().rsplit_once(':').unwrap_or((instance.authority(), "80"));
        span.set("server.address", host.to_owned());
        span.set("server.port", port.parse().unwrap_or(80_i64));
        describe_attempt(span, service, &instance.id, previous.attempts, previous.reason);
    });
    span
}

fn failed(service: &str, error: UpstreamError, mut picked: PickedReplica) -> Ended {
    let instance = picked.instance().id.clone();
    let flag = flag_of_error(&error);
    let (outcome, failure, status) = match &error {
        UpstreamError::Unreachable(_) => {
            (RequestOutcome::Unreachable, Failure::Unreachable, StatusCode::SERVICE_UNAVAILABLE)
        }
        UpstreamError::Local(why) => {
            metrics::local_failure(service, &why.to_string());
            (RequestOutcome::CallerFault, Failure::Unreachable, StatusCode::SERVICE_UNAVAILABLE)
        }
        UpstreamError::Stale => (RequestOutcome::StaleConnection, Failure::Reset, StatusCode::BAD_GATEWAY),
        UpstreamError::Reset(_) | UpstreamError::Unanswered => {
            (RequestOutcome::Reset, Failure::Reset, StatusCode::BAD_GATEWAY)
        }
        UpstreamError::Malformed(_) => {
            (RequestOutcome::Reset, Failure::Answered(StatusCode::BAD_GATEWAY), StatusCode::BAD_GATEWAY)
        }
        UpstreamError::TimedOut(time) => {
            (RequestOutcome::TimedOut.within(*time), Failure::TimedOut, StatusCode::GATEWAY_TIMEOUT)
        }
        // The client caused the failure, so it is not recorded for the replica.
        UpstreamError::Client(_) => return Ended::ClientFailed(broken_body().flagged(flag)),
        UpstreamError::SlowClient => {
            return Ended::ClientFailed(Problem::of_status(StatusCode::REQUEST_TIMEOUT).flagged(flag));
        }
    };
    log::warn!(instance, error:%; "an attempt failed");
    picked.record(outcome, Instant::now());
    let problem = Problem::of_status(status).flagged(flag);
    let problem = if status == StatusCode::SERVICE_UNAVAILABLE { problem.retry_after(1) } else { problem };
    Ended::Failed(failure, problem, None)
}
