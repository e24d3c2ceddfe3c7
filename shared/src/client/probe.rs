//! Probes an ejected replica with a health check, in place of a request that must not be sent twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::Method;

use crate::balancer::{PickedReplica, Pool, RequestOutcome};
use crate::http::{Call, ExchangeError, Response, exchange, retry_after};

const TIMEOUT: Duration = Duration::from_secs(3);

/// If a replica of `pool` is due for a probe, checks its readiness in the background.
pub fn probe(pool: &Arc<Pool>) {
    if let Some(picked) = pool.pick_probe(&[], Instant::now()) {
        actix_web::rt::spawn(check(picked));
    }
}

async fn check(mut picked: PickedReplica) {
    let url = format!("{}/health/ready", picked.instance().url);
    let call = Call::new(Method::GET, url, TIMEOUT).to_peer(picked.peer_tls());
    match exchange(call).await {
        Ok(response) if response.status.is_success() => picked.health_check_passed(Instant::now()),
        failed => picked.record(outcome(&failed, TIMEOUT), Instant::now()),
    }
}

/// The outcome of an exchange that had to end within `time`, for the circuit breaker of the replica.
pub(super) fn outcome(exchanged: &Result<Response, ExchangeError>, time: Duration) -> RequestOutcome {
    let outcome = match exchanged {
        Ok(response) => {
            RequestOutcome::Answered { status: response.status, retry_after: retry_after(&response.headers) }
        }
        Err(ExchangeError::Unreachable(_)) => RequestOutcome::Unreachable,
        Err(ExchangeError::Broken(_)) => RequestOutcome::Reset,
        Err(ExchangeError::TimedOut) => RequestOutcome::TimedOut,
        Err(ExchangeError::Local(_) | ExchangeError::TooLarge) => RequestOutcome::CallerFault,
    };
    outcome.within(time)
}
