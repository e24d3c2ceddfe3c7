//! The reverse proxy: the life of a request, from the client to a replica and back.
//!
//! 1. [`path`]: refuse an ambiguous request (request smuggling, path traversal).
//! 2. [`rate`](crate::rate): count a request with a token by its address.
//! 3. [`identity`](crate::identity): verify the token. A request without one passes; the services decide.
//! 4. [`rate`](crate::rate): apply the rate limit of the user, or of the address without a token.
//! 5. [`routing`](crate::routing): find the route of the path, and its timeouts.
//! 6. Read a small body, then take a place in the queue of the service. Uploads, event streams and requests that wait
//!    have limits of their own ([`concurrency`](crate::concurrency)).
//! 7. [`attempts`]: pick a replica, send the request, and retry if the policy allows it.
//! 8. [`headers`]: drop hop-by-hop headers, and add those of a proxy, in both directions.

pub mod attempts;
pub mod headers;
pub mod path;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use actix_web::http::{ConnectionType, Method, StatusCode, Version, header};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use shared::balancer::Strategy;
use shared::problem::{Problem, codes};
use shared::request::PreferWait;
use shared::resilience::retry::{REPLAY_LIMIT, is_safe};
use shared::service::Exchange;
use shared::stop::Stop;
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use crate::concurrency::{Concurrency, PerClient, Place};
use crate::engine::{Body, Engine};
use crate::identity::Identity;
use crate::rate::RateLimits;
use crate::routing::{Route, Table};

/// The state of the proxy, shared by the workers.
pub struct Gateway {
    /// Replaced at each reload.
    pub table: Arc<ArcSwap<Table>>,
    pub identity: Identity,
    pub rates: RateLimits,
    pub concurrency: Concurrency,
    /// Logs the warning about a proxy that is not in `trusted_proxies`.
    pub untrusted_proxy: Once,
    /// Bytes for bodies that are kept to be sent again.
    pub kept_bodies: Semaphore,
}

impl Gateway {
    /// Counts a request that the gateway answers itself.
    pub fn check_rate(&self, request: &HttpRequest) -> Result<(), Problem> {
        self.rates.check(None, self.client_of(request, &self.table.load()), request).map(drop)
    }

    /// The client's address. Warns once if it seems to be a proxy's: then all clients behind it count as one.
    fn client_of(&self, request: &HttpRequest, table: &Table) -> IpAddr {
        let peer = peer_address(request);
        if request.headers().contains_key(header::X_FORWARDED_FOR)
            && is_private(peer)
            && !table.is_trusted(&peer)
        {
            let peer = peer.to_string();
            self.untrusted_proxy.call_once(|| {
                log::warn!(peer; "X-Forwarded-For is ignored: if a proxy of yours sends it, add its network to trusted_proxies");
            });
        }
        client_address(request, table)
    }
}

/// Time of a client to send its body.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Time of the replicas to answer, unless the route or `Prefer: wait` needs more. It begins when the request is
/// there, so that a slow client does not use it up.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Forwards a request to a replica of the service that the path routes to.
pub async fn proxy(
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
    engine: Data<Engine>,
) -> Result<HttpResponse, Problem> {
    let path = match path::checked(&request) {
        Ok(path) => path,
        Err(problem) => return Ok(refuse_and_close(&problem)),
    };
    let table = gateway.table.load_full();
    let client = gateway.client_of(&request, &table);
    gateway.rates.check_token(client, &request)?;
    let identified = gateway.identity.caller(&request).await;
    // A request with a bad token counts too, against the client's address.
    let rate = gateway.rates.check(identified.as_ref().ok().and_then(Option::as_ref), client, &request)?;
    let person = identified?.map(|caller| caller.id);
    let route = table.route(path).ok_or_else(Problem::not_found)?;
    let wait = wait_of(&request, route);
    let waiting = wait.and_then(|_| gateway.concurrency.waits.enter(person, client));
    let exchange = request.conn_data::<Rc<Exchange>>().cloned();
    let granted = wait.filter(|_| waiting.is_some()).unwrap_or_default();
    let head_timeout = Duration::from_secs(route.entry.head_timeout_s).max(granted);
    let dropped: &[&str] = if wait.is_some() && waiting.is_none() { &["prefer"] } else { &[] };
    let upload_end = Instant::now() + UPLOAD_TIMEOUT;
    let (mut upload, (body, _kept)) = match has_body(&request) {
        // `Content-Length: 0` is passed on.
        false if request.headers().contains_key(header::CONTENT_LENGTH) => {
            (None, (Body::Kept(Bytes::new()), None))
        }
        false => (None, (Body::None, None)),
        true => {
            // A place among the client's own uploads, not in the queue of the service: there slow clients would
            // keep others out.
            let upload = place("uploads", &gateway.concurrency.uploads, person, client)?;
            let body = body_of(&request, payload, &gateway.kept_bodies);
            let body = tokio::time::timeout(UPLOAD_TIMEOUT, body).await;
            (Some(upload), body.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))??)
        }
    };
    // A body that is streamed is still to come.
    let is_streamed = matches!(body, Body::Streaming(..));
    let begin = if is_streamed { upload_end } else { Instant::now() };
    if !is_streamed {
        upload = None;
    }
    let _permit = match waiting.is_some() || is_streamed {
        true => None,
        false => Some(route.load.limiter.enter().await.map_err(|_| Problem::unavailable(1))?),
    };
    let plan = attempts::Plan {
        head: headers::outgoing(&request, path, client, &table, dropped),
        affinity: affinity(&request, route, client),
        repeatable: is_safe(request.method()) || has_key(&request, route),
        is_head: request.method() == Method::HEAD,
        client: exchange.clone().filter(|_| request.version() == Version::HTTP_11),
        head_timeout,
        upload_end,
        end: begin + TIMEOUT.max(head_timeout),
        lasts_long: waiting.is_some() || is_streamed,
    };
    let answered = attempts::run(&engine, route, plan, body).await;
    drop(upload);
    let mut response = match answered {
        Ok((answer, mut hold)) => {
            let stream = if answer.is_event_stream() && !answer.body.is_over() {
                hold.exempt();
                Some(place("event streams", &gateway.concurrency.streams, person, client)?)
            } else {
                None
            };
            let stop = request.app_data::<Data<Stop>>().map(|stop| stop.get_ref().clone());
            headers::incoming(answer, hold, &route.entry.service, headers::Client { exchange, stop, stream })
        }
        Err(problem) => actix_web::ResponseError::error_response(&problem),
    };
    rate.show(response.headers_mut());
    response.extensions_mut().insert(route.label.clone());
    Ok(response)
}

/// Closes the connection after an ambiguous request, because it is unknown where the next request begins.
fn refuse_and_close(problem: &Problem) -> HttpResponse {
    let mut response = actix_web::ResponseError::error_response(problem);
    response.head_mut().set_connection_type(ConnectionType::Close);
    response
}

/// Whether an idempotency key makes the request safe to retry.
fn has_key(request: &HttpRequest, route: &Route) -> bool {
    route.entry.honours_keys
        && request.method() == Method::POST
        && request.headers().contains_key("idempotency-key")
}

/// The timeout for `Prefer: wait=N`, which is N + 5 s, on a route that has it.
fn wait_of(request: &HttpRequest, route: &Route) -> Option<Duration> {
    let wait = <PreferWait as actix_web::FromRequest>::extract(request).into_inner().ok()?.0?;
    (route.entry.prefer_wait && request.method() == Method::POST).then_some(wait + Duration::from_secs(5))
}

/// A place among the client's `what`; 429 if it has as many as `limit` allows.
fn place(what: &str, limit: &PerClient, person: Option<Uuid>, client: IpAddr) -> Result<Place, Problem> {
    limit.enter(person, client).ok_or_else(|| {
        let detail = format!("Too many {what} are open; close one, or wait.");
        Problem::new(codes::RATE_LIMITED, detail).retry_after(5)
    })
}

/// The key for consistent hashing; empty for other strategies.
fn affinity(request: &HttpRequest, route: &Route, client: IpAddr) -> String {
    if route.picker.strategy() != Strategy::ConsistentHash {
        return String::new();
    }
    let header = route.entry.hash_header.as_deref().and_then(|name| request.headers().get(name));
    header.and_then(|value| value.to_str().ok()).map_or_else(|| client.to_string(), str::to_owned)
}

/// The client's address: the last in `X-Forwarded-For` and the connection that is not a trusted proxy.
fn client_address(request: &HttpRequest, table: &Table) -> IpAddr {
    let peer = peer_address(request);
    if !table.is_trusted(&peer) {
        return peer;
    }
    let lists =
        request.headers().get_all(header::X_FORWARDED_FOR).map(|value| value.to_str().unwrap_or_default());
    let addresses: Vec<&str> = lists.flat_map(|list| list.split(',')).collect();
    // From right to left. Addresses to the left of the first untrusted one may be forged by the client.
    let mut addresses = addresses.into_iter().rev().map_while(|text| text.trim().parse().ok());
    addresses.find(|address| !table.is_trusted(address)).unwrap_or(peer)
}

fn peer_address(request: &HttpRequest) -> IpAddr {
    request.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip())
}

/// Whether the address is of this machine or of a private network, as that of a proxy in front of the gateway.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

fn has_body(request: &HttpRequest) -> bool {
    request.headers().contains_key(header::TRANSFER_ENCODING)
        || request.headers().get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// Buffers a small body while there is memory for it, so that it can be sent again. Streams every other.
async fn body_of<'a>(
    request: &HttpRequest,
    mut payload: Payload,
    kept_bodies: &'a Semaphore,
) -> Result<(Body, Option<SemaphorePermit<'a>>), Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let small =
        length.and_then(|length| u32::try_from(length).ok()).filter(|length| *length <= REPLAY_LIMIT as u32);
    let permit = small.and_then(|length| kept_bodies.try_acquire_many(length).ok());
    match length {
        None if !chunked => Ok((Body::None, None)),
        Some(length) if permit.is_some() => {
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
            Ok((Body::Kept(Bytes::from(kept)), permit))
        }
        length => Ok((Body::Streaming(payload, length), None)),
    }
}

fn broken_body() -> Problem {
    Problem::malformed("The body did not arrive whole.")
}
