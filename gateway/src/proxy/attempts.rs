//! The attempts of a request: pick a replica, send, and retry by the policy in [`shared::resilience::retry`].

use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use shared::balancer::{Hold, NoReplica, ReplicaKey, RequestOutcome};
use shared::client::{ATTEMPT_HEADER, is_retried, probe};
use shared::http;
use shared::metrics;
use shared::problem::Problem;
use shared::resilience::Deadline;
use shared::resilience::retry::{self, Attempts, Failure};
use shared::service::Exchange;

use super::headers;
use crate::engine::{Body, Engine, Request, Response, UpstreamError};
use crate::routing::Route;

/// The parts of a request that are equal in every attempt.
pub struct Plan {
    /// The head, without deadline and retry attempt.
    pub head: Vec<u8>,
    /// The key for consistent hashing.
    pub affinity: String,
    /// Sending it twice has the same effect as sending it once.
    pub repeatable: bool,
    /// The response has no body.
    pub is_head: bool,
    /// The client's connection, for informational responses.
    pub client: Option<Rc<Exchange>>,
    /// Time to the head of the response.
    pub head_timeout: Duration,
    /// End of the time for sending the request's body.
    pub upload_end: Instant,
    /// Deadline of the whole exchange.
    pub end: Instant,
    /// It does not count toward the requests in flight of a replica.
    pub lasts_long: bool,
}

/// Result of one attempt.
enum Ended {
    Answered(Response, Hold),
    /// The retry policy decides. If there is no retry, the client gets the response, if any, or the problem.
    Failed(Failure, Problem, Option<(Response, Hold)>),
    /// No retry: no replica is left, or the client's body failed.
    Refused(Problem),
}

/// Sends the request until a replica responds without a retryable failure, or the policy gives up.
pub async fn run(
    engine: &Engine,
    route: &Route,
    plan: Plan,
    body: Body,
) -> Result<(Response, Hold), Problem> {
    route.load.budget.request(Instant::now());
    let replayable = matches!(body, Body::None | Body::Kept(_));
    let properties = retry::Request { repeatable: plan.repeatable, replayable, outermost: true };
    let mut request = Request {
        head: Vec::new(),
        body,
        is_head: plan.is_head,
        head_timeout: plan.head_timeout,
        client: plan.client.clone(),
        upload_end: plan.upload_end,
        end: plan.end,
    };
    let (mut attempts, mut tried) = (Attempts::default(), Vec::new());
    let mut last: Option<(Problem, Option<(Response, Hold)>)> = None;
    loop {
        request.head = head_of(&plan, &attempts);
        let (failure, problem, answer) = match attempt(engine, route, &plan, &mut request, &mut tried).await {
            Ended::Answered(answer, hold) => return Ok((answer, hold)),
            Ended::Failed(failure, problem, answer) => (failure, problem, answer),
            // The failure of the previous attempt says more than that no replica is left.
            Ended::Refused(problem) => {
                let (problem, answer) = last.unwrap_or((problem, None));
                return answer.ok_or(problem);
            }
        };
        let (service, budget) = (&route.entry.service, &route.load.budget);
        if !is_retried(service, &mut attempts, properties, failure, plan.end, budget).await {
            return answer.ok_or(problem);
        }
        last = Some((problem, answer));
    }
}

fn head_of(plan: &Plan, attempts: &Attempts) -> Vec<u8> {
    let mut head = Vec::with_capacity(plan.head.len() + 160);
    head.extend_from_slice(&plan.head);
    let left = plan.end.saturating_duration_since(Instant::now());
    headers::line(&mut head, Deadline::NAME, Deadline::header_value(left).as_bytes());
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
    let (pool, picker, affinity) = (&route.pool, &route.picker, Some(plan.affinity.as_str()));
    let picked = if plan.repeatable {
        pool.pick(picker, affinity, tried, Instant::now())
    } else {
        probe(pool);
        pool.pick_without_probe(picker, affinity, tried, Instant::now())
    };
    let mut hold = match picked {
        Ok(hold) => hold,
        Err(NoReplica::None | NoReplica::Busy) => return Ended::Refused(Problem::unavailable(1)),
    };
    if plan.lasts_long {
        hold.exempt();
    }
    tried.push(hold.key());
    let authority = hold.instance().authority().to_owned();
    let time = plan.end.saturating_duration_since(Instant::now());
    let exchanged = engine.exchange(&authority, hold.peer(), request).await;
    match exchanged {
        Ok(answer) => {
            let outcome =
                RequestOutcome::Answered { status: answer.status, retry_after: retry_after(&answer) };
            hold.record(outcome.within(time), Instant::now());
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
                // The same replica may be tried again, with a new connection.
                tried.pop();
            }
            failed(&route.entry.service, error, hold)
        }
    }
}

fn failed(service: &str, error: UpstreamError, mut hold: Hold) -> Ended {
    let instance = hold.instance().id.clone();
    let (outcome, failure, status) = match &error {
        UpstreamError::Unreachable(_) => {
            (RequestOutcome::Unreachable, Failure::Unreachable, StatusCode::SERVICE_UNAVAILABLE)
        }
        UpstreamError::Local(why) => {
            metrics::local_failure(service, &why.to_string());
            (RequestOutcome::OwnFault, Failure::Unreachable, StatusCode::SERVICE_UNAVAILABLE)
        }
        UpstreamError::Stale => (RequestOutcome::StaleConnection, Failure::Reset, StatusCode::BAD_GATEWAY),
        UpstreamError::Reset(_) => (RequestOutcome::Reset, Failure::Reset, StatusCode::BAD_GATEWAY),
        UpstreamError::Malformed(_) => {
            (RequestOutcome::Reset, Failure::Answered(StatusCode::BAD_GATEWAY), StatusCode::BAD_GATEWAY)
        }
        UpstreamError::TimedOut(time) => {
            (RequestOutcome::TimedOut.within(*time), Failure::TimedOut, StatusCode::GATEWAY_TIMEOUT)
        }
        // Not the replica's fault.
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
    http::seconds(response.headers.get("retry-after")?)
}
