//! Active health checks: calls `/health/ready` of every replica.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use serde_json::Value;
use shared::balancer::{CheckResult, Pool};
use shared::http::{Call, ExchangeError, exchange};
use shared::metrics;
use shared::registry::Instance;
use shared::service::DRAIN;
use shared::stop::Stop;

/// The pause between two checks of a replica; ± 20 %, to spread the checks.
const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(3);
/// The pause before the next look for new replicas and due checks.
const TICK: Duration = Duration::from_millis(50);

/// Checks the replicas of all `pools` until `stop`.
pub async fn run(pools: impl Fn() -> Vec<Arc<Pool>>, stop: Stop) {
    let mut due: BTreeMap<Rc<(String, Instance)>, Instant> = BTreeMap::new();
    while !stop.is_requested() {
        let now = Instant::now();
        let mut present = BTreeMap::new();
        for pool in pools() {
            for seen in pool.snapshot(now) {
                let key = Rc::new((pool.service().to_owned(), (*seen.instance).clone()));
                let mut next = due.get(&key).copied().unwrap_or(now);
                if next <= now {
                    next = now + INTERVAL.mul_f64(0.8 + 0.4 * rand::random::<f64>());
                    actix_web::rt::spawn(check(pool.clone(), key.1.clone()));
                }
                present.insert(key, next);
            }
        }
        // Forgets replicas that have left the registry.
        due = present;
        stop.sleep(TICK).await;
    }
}

async fn check(pool: Arc<Pool>, instance: Instance) {
    let url = format!("{}/health/ready", instance.url);
    let call = Call::new(Method::GET, url, TIMEOUT).to_peer(pool.peer_tls());
    let report = match exchange(call).await {
        Ok(answer) if answer.status.is_success() => CheckResult::Passed,
        Ok(answer) if is_draining(&answer.body) => CheckResult::Draining,
        Err(ExchangeError::Unreachable(_)) => CheckResult::Refused,
        // A failure on this side says nothing about the replica.
        Err(ExchangeError::Local(why)) => return metrics::local_failure(pool.service(), &why),
        Ok(_) | Err(_) => CheckResult::Failed,
    };
    if report != CheckResult::Passed {
        log::info!(peer_service = pool.service(), instance = instance.id; "a health check failed");
    }
    pool.report_check(&instance.id, report, Instant::now());
}

fn is_draining(health: &[u8]) -> bool {
    serde_json::from_slice::<Value>(health).is_ok_and(|health| health["checks"][DRAIN] == "down")
}
