//! Rate limits: a token bucket (GCRA, by `governor`) for each user. A request without a token counts toward the bucket
//! of its address. With IPv6, a network of 64 bits counts as one address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use shared::auth::Caller;
use shared::problem::Problem;
use shared::service::network;
use shared::stop::Stop;
use uuid::Uuid;

use crate::routing::Table;

type Buckets = RateLimiter<Client, DashMapStateStore<Client>, DefaultClock, StateInformationMiddleware>;

/// The client whose requests a bucket counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Client {
    Person(Uuid),
    /// A [`network`].
    Address(IpAddr),
}

pub struct RateLimits(Option<Limits>);

struct Limits {
    requests: Buckets,
    /// Requests with a token, by address. They have their own limit, because verifying a signature costs more than any
    /// other refusal.
    tokens: Buckets,
    policy: HeaderValue,
    /// Limits of expensive POSTs, such as a log-in, by path of the route. Each bucket is for one address, regardless
    /// of the user.
    expensive: BTreeMap<String, Buckets>,
}

/// The remaining requests, and the value of `RateLimit-Policy`.
pub struct Rate(Option<(u32, HeaderValue)>);

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

impl RateLimits {
    /// The limits in `table`; no limits if `on` is false.
    pub fn new(table: &Table, on: bool) -> Self {
        let config = &table.config;
        let buckets = |per_second: u32, burst: u32| {
            let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
            RateLimiter::dashmap(quota).with_middleware::<StateInformationMiddleware>()
        };
        let expensive = config.routes.iter().filter_map(|route| {
            route.post_rate_per_second.map(|rate| (route.prefix.clone(), buckets(rate, rate)))
        });
        Self(on.then(|| Limits {
            requests: buckets(config.rate_per_second, config.rate_burst),
            tokens: buckets(config.token_rate_per_second, 2 * config.token_rate_per_second),
            policy: value(&format!("\"default\";q={};w=1", config.rate_per_second)),
            expensive: expensive.collect(),
        }))
    }

    /// Counts a request with a token, before the token is verified.
    pub fn check_token(&self, client: IpAddr, request: &HttpRequest) -> Result<(), Problem> {
        let Some(limits) = self.0.as_ref().filter(|_| request.headers().contains_key(AUTHORIZATION)) else {
            return Ok(());
        };
        let checked = limits.tokens.check_key(&Client::Address(network(client)));
        checked.map(drop).map_err(|not_until| refused(&not_until))
    }

    /// Counts a request; 429 with `Retry-After` if it exceeds a limit.
    pub fn check(
        &self,
        caller: Option<&Caller>,
        client: IpAddr,
        request: &HttpRequest,
    ) -> Result<Rate, Problem> {
        let Some(limits) = &self.0 else { return Ok(Rate(None)) };
        let client = Client::Address(network(client));
        let key = caller.map_or_else(|| client.clone(), |caller| Client::Person(caller.id));
        let refused = |not_until: &Exceeded| {
            refused(not_until)
                .header(RATE_LIMIT, "\"default\";r=0;t=1")
                .header(RATE_LIMIT_POLICY, limits.policy.to_str().unwrap_or_default())
        };
        let left = match limits.requests.check_key(&key) {
            Ok(state) => state.remaining_burst_capacity(),
            Err(not_until) => return Err(refused(&not_until)),
        };
        if request.method() == Method::POST
            && let Some(expensive) = limits.expensive.get(request.path())
            && let Err(not_until) = expensive.check_key(&client)
        {
            return Err(refused(&not_until));
        }
        Ok(Rate(Some((left, limits.policy.clone()))))
    }

    /// Removes full buckets regularly until `stop`.
    pub async fn prune(&self, stop: Stop) {
        while !stop.is_requested() {
            stop.sleep(PRUNE_INTERVAL).await;
            if let Some(limits) = &self.0 {
                limits.requests.retain_recent();
                limits.tokens.retain_recent();
                limits.expensive.values().for_each(Buckets::retain_recent);
            }
        }
    }
}

type Exceeded = governor::NotUntil<<DefaultClock as governor::clock::Clock>::Instant>;

fn refused(not_until: &Exceeded) -> Problem {
    let wait = not_until.wait_time_from(DefaultClock::default().now()).as_secs();
    Problem::of_status(StatusCode::TOO_MANY_REQUESTS)
        .retry_after(u32::try_from(wait).unwrap_or(u32::MAX).max(1))
}

/// `text` has ASCII letters, digits and punctuation only.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

impl Rate {
    /// Adds the response headers (draft-ietf-httpapi-ratelimit-headers).
    pub fn add_headers(self, headers: &mut HeaderMap) {
        let Some((left, policy)) = self.0 else { return };
        let text = ["\"default\";r=", itoa::Buffer::new().format(left), ";t=1"].concat();
        headers.insert(RATE_LIMIT, value(&text));
        headers.insert(RATE_LIMIT_POLICY, policy);
    }
}
