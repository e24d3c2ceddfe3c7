//! The life of a request, from the client to a replica and back.
//!
//! 1. [`path`]: what could be read in two ways is refused.
//! 2. [`identity`](crate::identity): a token must be good; none is fine, the services decide.
//! 3. [`rate`](crate::rate): not too many of one identity or address.
//! 4. Route, by the path; the deadline, by the route.
//! 5. [`attempts`]: pick a replica, send, and perhaps again.
//! 6. [`headers`]: what goes on, what stays, what is added, both ways.

pub mod attempts;
pub mod headers;
pub mod path;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::{ConnectionType, Method, StatusCode, header};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use shared::problem::Problem;
use shared::request::PreferWait;
use shared::resilience::retry::{REPLAY_LIMIT, is_safe};
use shared::service::RouteLabel;

use crate::engine::{Body, Engine};
use crate::identity::Identity;
use crate::rate::RateLimits;
use crate::routing::{Route, Table};

/// All that the data path needs, shared by the workers.
pub struct Gateway {
    /// The routes in force.
    pub table: Arc<ArcSwap<Table>>,
    /// Who asks.
    pub identity: Identity,
    /// How often they may.
    pub rates: RateLimits,
}

/// How long a request may take in all.
const TOTAL: Duration = Duration::from_secs(15);

/// Passes a request on to a replica of the service that its path belongs to.
///
/// # Errors
/// The problem that the client gets when no service answered.
pub async fn proxy(
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
    engine: Data<Engine>,
) -> Result<HttpResponse, Problem> {
    let started = Instant::now();
    let path = match path::checked(&request) {
        Ok(path) => path,
        Err(problem) => return Ok(refused(&problem)),
    };
    let table = gateway.table.load_full();
    let client = client_address(&request, &table);
    let identified = gateway.identity.caller(&request).await;
    // Who shows a bad token is nobody, and counts as such.
    let rate = gateway.rates.check(identified.as_ref().ok().and_then(Option::as_ref), client, &request)?;
    identified?;
    let route = table.route(&path).ok_or_else(Problem::not_found)?;
    let wait = wait_of(&request);
    let head_timeout = Duration::from_secs(route.entry.head_timeout_s).max(wait);
    let plan = attempts::Plan {
        head: headers::outgoing(&request, &path, client, &table),
        affinity: affinity(&request, route, client),
        repeatable: is_safe(request.method()) || has_key(&request, route),
        is_head: request.method() == Method::HEAD,
        head_timeout,
        end: started + TOTAL.max(head_timeout),
    };
    let body = tokio::time::timeout(TOTAL, body_of(&request, payload)).await;
    let body = body.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))??;
    let answered = attempts::run(&engine, route, plan, body).await;
    let mut response = match answered {
        Ok((answer, hold)) => headers::incoming(answer, hold, &route.entry.service),
        Err(problem) => actix_web::ResponseError::error_response(&problem),
    };
    rate.show(response.headers_mut());
    response.extensions_mut().insert(RouteLabel(route.entry.prefix.clone()));
    Ok(response)
}

/// What the client gets whose request can be read in two ways: where the next one begins is as unsure, so
/// the connection ends.
fn refused(problem: &Problem) -> HttpResponse {
    let mut response = actix_web::ResponseError::error_response(problem);
    response.head_mut().set_connection_type(ConnectionType::Close);
    response
}

/// Whether the service sees to it that this request happens once.
fn has_key(request: &HttpRequest, route: &Route) -> bool {
    route.entry.honours_keys
        && request.method() == Method::POST
        && request.headers().contains_key("idempotency-key")
}

/// Who prefers to wait (`Prefer: wait=N`) gets that and five seconds more.
fn wait_of(request: &HttpRequest) -> Duration {
    let wait = <PreferWait as actix_web::FromRequest>::extract(request).into_inner();
    wait.ok().and_then(|wait| wait.0).map_or(Duration::ZERO, |wait| wait + Duration::from_secs(5))
}

/// What consistent hashing goes by.
fn affinity(request: &HttpRequest, route: &Route, client: IpAddr) -> String {
    let header = route.entry.hash_header.as_deref().and_then(|name| request.headers().get(name));
    header.and_then(|value| value.to_str().ok()).map_or_else(|| client.to_string(), str::to_owned)
}

/// The nearest address that is no trusted proxy's.
fn client_address(request: &HttpRequest, table: &Table) -> IpAddr {
    let peer = request.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip());
    let trusted =
        |address: &IpAddr| table.file.trusted_proxies.iter().any(|network| network.contains(address));
    if !trusted(&peer) {
        return peer;
    }
    let lists =
        request.headers().get_all(header::X_FORWARDED_FOR).map(|value| value.to_str().unwrap_or_default());
    let addresses: Vec<&str> = lists.flat_map(|list| list.split(',')).collect();
    // From the right: what stands further left than the last trusted proxy is the client's own claim.
    let mut addresses = addresses.into_iter().rev().map_while(|text| text.trim().parse().ok());
    addresses.find(|address| !trusted(address)).unwrap_or(peer)
}

/// A small body is kept, so that it can be sent again; a large one streams.
async fn body_of(request: &HttpRequest, mut payload: Payload) -> Result<Body, Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    match length {
        None if !chunked => Ok(Body::None),
        Some(length) if length <= REPLAY_LIMIT as u64 => {
            let mut kept = actix_web::web::BytesMut::new();
            while let Some(part) = payload.next().await {
                kept.extend_from_slice(&part.map_err(|_| broken_body())?);
                if kept.len() as u64 > length {
                    return Err(broken_body());
                }
            }
            if kept.len() as u64 != length {
                return Err(broken_body());
            }
            Ok(Body::Kept(Bytes::from(kept)))
        }
        length => Ok(Body::Streaming(payload, length)),
    }
}

fn broken_body() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed_request", "The body did not arrive whole.")
}
