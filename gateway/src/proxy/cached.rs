//! The proxy's use of the [`cache`](crate::cache).

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BoxBody, to_bytes};
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderValue;
use shared::balancer::PickedReplica;
use shared::problem::Problem;

use super::{Arrival, headers};
use crate::access_log::flag_of_error;
use crate::cache::rules::{self, Kept};
use crate::cache::{CACHE_STATUS, Found, Leader, MAX_BODY};
use crate::engine::Response;
use crate::routing::{Route, Table};

/// What the cache of the route has for a request; `None` if its response must not be shared. An equal request that is
/// in progress may take as long as `timeout`.
pub async fn find(arrival: &Arrival<'_>, route: &Route, timeout: Duration) -> Option<Found> {
    let request = arrival.request;
    if !rules::is_shareable(request) {
        return None;
    }
    let key = rules::key(request, route, arrival.table);
    let found = arrival.gateway.cache.find(&key, request.headers(), timeout).await;
    match found {
        Found::Miss(_) if rules::is_conditional(request) => None,
        found => Some(found),
    }
}

/// Whether and how long the response may be stored. If not, calls [`Leader::bypass`]: waiting requests go to the
/// service, and so do new ones for a second. But a service that fails (5xx) must not get them all at once: then they fail,
/// too ([`Leader::fail`]). A response that varies by a header which the gateway changes is not stored.
pub fn storable_or_bypass(
    answer: &Response,
    leader: Option<Leader>,
    table: &Table,
) -> Option<(Leader, Kept)> {
    let leader = leader?;
    if answer.status.is_server_error() {
        leader.fail();
        return None;
    }
    let is_as_sent = |kept: &Kept| !kept.vary.names().iter().any(|name| headers::is_changed(name, table));
    match rules::kept(answer, MAX_BODY).filter(is_as_sent) {
        Some(kept) => Some((leader, kept)),
        None => {
            leader.bypass();
            None
        }
    }
}

/// Reads the whole response, and stores it.
pub async fn store(
    answer: Response,
    picked: PickedReplica,
    route: &Route,
    (leader, kept): (Leader, Kept),
) -> Result<HttpResponse, Problem> {
    let mut response = headers::response_head(&answer, &picked, &route.entry.service);
    let body = match to_bytes(answer.body).await {
        Ok(body) => body,
        Err(error) => {
            leader.fail();
            log::warn!(instance = picked.instance().id, error:%; "a response for the cache broke off");
            return Err(Problem::of_status(StatusCode::BAD_GATEWAY).flagged(flag_of_error(&error)));
        }
    };
    leader.store(&response, body.clone(), kept);
    response.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static("gateway; fwd=uri-miss; stored"));
    Ok(response.set_body(BoxBody::new(body)))
}

/// Invalidates the URL after a successful unsafe request (RFC 9111, section 4.4).
pub fn forget(arrival: &Arrival<'_>, route: &Route) {
    if route.entry.cache && rules::changes(arrival.request.method()) {
        arrival.gateway.cache.forget(&rules::key(arrival.request, route, arrival.table));
    }
}
