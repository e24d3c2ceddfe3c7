//! Attempts: pick a replica, send, and, by the rule of [`shared::resilience::retry`], perhaps again.

use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use shared::balancer::{Hold, NoReplica, ReplicaKey, RequestOutcome};
use shared::client::ATTEMPT_HEADER;
use shared::http;
use shared::metrics;
use shared::problem::Problem;
use shared::resilience::Deadline;
use shared::resilience::retry::{self, Attempts, Decision, Failure};

use super::headers;
use crate::engine::{Body, Engine, Request, Response, UpstreamError};
use crate::routing::Route;

/// What is the same for every attempt.
pub struct Plan {
    /// The head without what differs between attempts.
    pub head: Vec<u8>,
    /// What consistent hashing goes by.
    pub affinity: String,
    /// Sending it twice does no more than sending it once.
    pub repeatable: bool,
    /// The answer has no body.
    pub is_head: bool,
    /// How long to wait for the head of the answer.
    pub head_timeout: Duration,
    /// When all must be over.
    pub end: Instant,
}

/// One attempt's end, and what of it the client could get.
enum Ended {
    Answered(Response, Hold),
    Failed(Failure, Problem, Option<(Response, Hold)>),
    Refused(Problem),
}

/// Sends the request until a replica answers well, or the rule says to stop.
///
/// # Errors
/// The problem to tell the client.
pub async fn run(
    engine: &Engine,
    route: &Route,
    plan: Plan,
    body: Body,
) -> Result<(Response, Hold), Problem> {
    let Ok(_permit) = route.load.limiter.enter().await else { return Err(Problem::unavailable(1)) };
    route.load.budget.request(Instant::now());
    let replayable = matches!(body, Body::None | Body::Kept(_));
    let rule = retry::Request { repeatable: plan.repeatable, replayable, outermost: true };
    let mut request = Request {
        head: Vec::new(),
        body,
        is_head: plan.is_head,
        head_timeout: plan.head_timeout,
        end: plan.end,
    };
    let (mut attempts, mut tried) = (Attempts::default(), Vec::new());
    let mut last: Option<(Problem, Option<(Response, Hold)>)> = None;
    loop {
        request.head = head_of(&plan, &attempts);
        let (failure, problem, answer) = match attempt(engine, route, &plan, &mut request, &mut tried).await {
            Ended::Answered(answer, hold) => return Ok((answer, hold)),
            Ended::Failed(failure, problem, answer) => (failure, problem, answer),
            // Nobody else is left: the failure before tells more.
            Ended::Refused(problem) => {
                let (problem, answer) = last.unwrap_or((problem, None));
                return answer.ok_or(problem);
            }
        };
        let now = Instant::now();
        let left = plan.end.saturating_duration_since(now);
        match attempts.decide(rule, failure, left, &route.load.budget, now) {
            Decision::Again(pause) => {
                metrics::retry(&route.entry.service, failure);
                last = Some((problem, answer));
                tokio::time::sleep(pause).await;
            }
            Decision::GiveUp => return answer.ok_or(problem),
        }
    }
}

fn head_of(plan: &Plan, attempts: &Attempts) -> Vec<u8> {
    let mut head = Vec::with_capacity(plan.head.len() + 160);
    head.extend_from_slice(&plan.head);
    let left = plan.end.saturating_duration_since(Instant::now());
    headers::line(&mut head, Deadline::HEADER.as_str(), Deadline::after(left).header_value().as_bytes());
    headers::line(&mut head, ATTEMPT_HEADER, attempts.count().to_string().as_bytes());
    head
}

async fn attempt(
    engine: &Engine,
    route: &Route,
    plan: &Plan,
    request: &mut Request,
    tried: &mut Vec<ReplicaKey>,
) -> Ended {
    let picked = route.pool.pick(&route.picker, Some(&plan.affinity), tried, Instant::now());
    let mut hold = match picked {
        Ok(hold) => hold,
        Err(NoReplica::None | NoReplica::Busy) => return Ended::Refused(Problem::unavailable(1)),
    };
    tried.push(hold.key());
    let authority = hold.instance().authority().to_owned();
    let exchanged = engine.exchange(&authority, request).await;
    match exchanged {
        Ok(answer) => {
            let outcome =
                RequestOutcome::Answered { status: answer.status, retry_after: retry_after(&answer) };
            hold.record(outcome, Instant::now());
            match answer.status.as_u16() {
                502..=504 => {
                    let problem = Problem::of_status(answer.status);
                    Ended::Failed(Failure::Answered(answer.status), problem, Some((answer, hold)))
                }
                _ => Ended::Answered(answer, hold),
            }
        }
        Err(error) => {
            if matches!(error, UpstreamError::Stale) {
                // A fresh connection to the same replica is as good as another.
                tried.pop();
            }
            failed(error, hold)
        }
    }
}

fn failed(error: UpstreamError, mut hold: Hold) -> Ended {
    let instance = hold.instance().id.clone();
    let (outcome, failure, status) = match &error {
        UpstreamError::Unreachable(_) => {
            (RequestOutcome::Unreachable, Failure::Unreachable, StatusCode::SERVICE_UNAVAILABLE)
        }
        UpstreamError::Stale => (RequestOutcome::StaleConnection, Failure::Reset, StatusCode::BAD_GATEWAY),
        UpstreamError::Reset(_) => (RequestOutcome::Reset, Failure::Reset, StatusCode::BAD_GATEWAY),
        UpstreamError::Malformed(_) => {
            (RequestOutcome::Reset, Failure::Answered(StatusCode::BAD_GATEWAY), StatusCode::BAD_GATEWAY)
        }
        UpstreamError::TimedOut => (RequestOutcome::TimedOut, Failure::TimedOut, StatusCode::GATEWAY_TIMEOUT),
        // The replica has no part in it.
        UpstreamError::Client(_) => return Ended::Refused(super::broken_body()),
        UpstreamError::SlowClient => {
            return Ended::Refused(Problem::of_status(StatusCode::REQUEST_TIMEOUT));
        }
    };
    log::warn!(instance, error:%; "an attempt failed");
    hold.record(outcome, Instant::now());
    let problem = Problem::of_status(status);
    let problem = if status == StatusCode::SERVICE_UNAVAILABLE { problem.retry_after(1) } else { problem };
    Ended::Failed(failure, problem, None)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let (_, value) = response.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
    http::seconds(std::str::from_utf8(value).ok()?)
}
