//! Tells the canary of a route how its attempts end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use shared::balancer::{PickedReplica, RequestOutcome};

use crate::engine::{Response, UpstreamError};
use crate::policies::versions::{Change, Split};
use crate::routing::Route;

/// Counts an attempt that had `time`, if it went to the canary. A good response counts at the end of its body, because
/// the body may break off. One that does not end by itself counts with its head.
pub fn record(
    split: &Arc<Split>,
    route: &Route,
    picked: &PickedReplica,
    exchanged: &mut Result<Response, UpstreamError>,
    time: Duration,
) {
    let Some(canary) = split.canary_version().filter(|canary| picked.instance().version() == Some(canary))
    else {
        return;
    };
    let (split, route, version) = (split.clone(), route.entry.id.clone(), canary.to_owned());
    let count = move |is_error: Option<bool>| {
        if let Some(is_error) = is_error {
            count(&split, &route, &version, is_error);
        }
    };
    match exchanged {
        Ok(answer) if is_bad_answer(answer, time) == Some(false) && ends_later(answer) => {
            answer.body.on_end(move |error| count(error.map_or(Some(false), is_error_of_version)));
        }
        Ok(answer) => count(is_bad_answer(answer, time)),
        Err(error) => count(is_error_of_version(error)),
    }
}

fn count(split: &Split, route: &str, version: &str, is_error: bool) {
    match split.record(version, is_error, Instant::now()) {
        Some(Change::RolledBack) => {
            log::warn!(route, version; "the canary is rolled back: it has too many errors")
        }
        Some(Change::Step(percent)) => log::info!(route, version, percent; "the canary has the next share"),
        None => {}
    }
}

/// Whether the body has an end that is still to come.
fn ends_later(answer: &Response) -> bool {
    !answer.body.is_over() && !answer.is_event_stream && answer.status != StatusCode::SWITCHING_PROTOCOLS
}

/// `None` if the response says nothing about the version.
fn is_bad_answer(answer: &Response, time: Duration) -> Option<bool> {
    // The request asked for what no version can do.
    if matches!(answer.status.as_u16(), 501 | 505) {
        return None;
    }
    let answered = RequestOutcome::Answered { status: answer.status, retry_after: answer.retry_after() };
    is_bad(answered.within(time))
}

/// `None` if the error says nothing about the version.
fn is_error_of_version(error: &UpstreamError) -> Option<bool> {
    match error {
        UpstreamError::TimedOut(time) => is_bad(RequestOutcome::TimedOut.within(*time)),
        UpstreamError::Local(_)
        | UpstreamError::Stale
        | UpstreamError::Client(_)
        | UpstreamError::SlowClient => None,
        UpstreamError::Unreachable(_)
        | UpstreamError::Unanswered
        | UpstreamError::Reset(_)
        | UpstreamError::Malformed(_) => is_bad(RequestOutcome::Reset),
    }
}

fn is_bad(outcome: RequestOutcome) -> Option<bool> {
    (outcome.is_conclusive() && !outcome.is_pushback()).then(|| outcome.is_failure())
}
