//! Rate limits: a token bucket (GCRA, by `governor`) for each user, or each address without a token.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use shared::auth::Caller;
use shared::problem::Problem;
use shared::stop::Stop;

use crate::routing::Table;

type Buckets = RateLimiter<String, DashMapStateStore<String>, DefaultClock, StateInformationMiddleware>;

pub struct RateLimits(Option<Limits>);

struct Limits {
    requests: Buckets,
    policy: String,
    /// For expensive POSTs, such as hashing a password. By path of the route; each bucket is for one address,
    /// regardless of the user.
    expensive: BTreeMap<String, Buckets>,
}

/// The remaining limit: values of `RateLimit` and `RateLimit-Policy`.
pub struct Rate(Option<(String, String)>);

const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

impl RateLimits {
    /// The limits in `table`; none if not `on`.
    pub fn new(table: &Table, on: bool) -> Self {
        let file = &table.file;
        let buckets = |per_second: u32, burst: u32| {
            let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
            RateLimiter::dashmap(quota).with_middleware::<StateInformationMiddleware>()
        };
        let expensive = file.routes.iter().filter_map(|route| {
            route.post_rate_per_second.map(|rate| (route.prefix.clone(), buckets(rate, rate)))
        });
        Self(on.then(|| Limits {
            requests: buckets(file.rate_per_second, file.rate_burst),
            policy: format!("\"default\";q={};w=1", file.rate_per_second),
            expensive: expensive.collect(),
        }))
    }

    /// Counts a request; 429 with `Retry-After` if it exceeds a limit.
    pub fn check(
        &self,
        caller: Option<&Caller>,
        client: IpAddr,
        request: &HttpRequest,
    ) -> Result<Rate, Problem> {
        let Some(limits) = &self.0 else { return Ok(Rate(None)) };
        let key = caller.map_or_else(|| client.to_string(), |caller| caller.id.to_string());
        let refused = |wait: Duration, limit: Rate| {
            let problem = Problem::of_status(StatusCode::TOO_MANY_REQUESTS);
            let problem = problem.retry_after(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).max(1));
            limit.0.into_iter().fold(problem, |problem, (remaining, policy)| {
                problem
                    .header(HeaderName::from_static("ratelimit"), remaining)
                    .header(HeaderName::from_static("ratelimit-policy"), policy)
            })
        };
        let now = DefaultClock::default().now();
        let rate = |left: u32| Rate(Some((format!("\"default\";r={left};t=1"), limits.policy.clone())));
        let left = match limits.requests.check_key(&key) {
            Ok(state) => state.remaining_burst_capacity(),
            Err(not_until) => return Err(refused(not_until.wait_time_from(now), rate(0))),
        };
        if request.method() == Method::POST
            && let Some(expensive) = limits.expensive.get(request.path())
            && let Err(not_until) = expensive.check_key(&client.to_string())
        {
            return Err(refused(not_until.wait_time_from(now), rate(0)));
        }
        Ok(rate(left))
    }

    /// Removes full buckets regularly until `stop`.
    pub async fn prune(&self, stop: Stop) {
        while !stop.is_requested() {
            stop.sleep(PRUNE_INTERVAL).await;
            if let Some(limits) = &self.0 {
                limits.requests.retain_recent();
                limits.expensive.values().for_each(Buckets::retain_recent);
            }
        }
    }
}

fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

impl Rate {
    /// Adds the response headers (draft-ietf-httpapi-ratelimit-headers).
    pub fn show(self, headers: &mut HeaderMap) {
        let Some((remaining, policy)) = self.0 else { return };
        for (name, value) in [("ratelimit", remaining), ("ratelimit-policy", policy)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}
