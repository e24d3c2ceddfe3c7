//! The reverse proxy: the life of a request, from the client to a replica and back.
//!
//! 1. [`path`]: refuse an ambiguous request (request smuggling, path traversal).
//! 2. [`rate`](crate::rate): count a request with a token, by the address of the client.
//! 3. [`identity`](crate::identity): verify the token. A request without one passes; the services decide.
//! 4. [`rate`](crate::rate): apply the rate limit of the user, or of the address without a token.
//! 5. [`routing`](crate::routing): find the route of the path, with its timeouts, and check its `access`.
//! 6. For a WebSocket: check its `Origin`, and take a place among the client's streams.
//! 7. [`cached`]: if the cache has a response, the request ends here.
//! 8. Read a small body, then take a place in the queue of the service. Uploads, event streams and requests that wait
//!    have limits of their own ([`concurrency`](crate::concurrency)).
//! 9. Choose the version of the service, and send a copy of the request to the [`mirror`].
//! 10. [`attempts`]: pick a replica, send the request, and retry if the policy allows it.
//! 11. [`headers`]: drop hop-by-hop headers, and add those of a proxy, in both directions. After a 101, [`upgrade`]
//!     passes on bytes as they arrive.

pub mod attempts;
pub mod cached;
pub mod headers;
pub mod mirror;
pub mod path;
pub mod upgrade;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use actix_web::http::{ConnectionType, Method, StatusCode, Version, header};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use shared::balancer::Strategy;
use shared::problem::{Problem, codes};
use shared::request::{PreferWait, has_body};
use shared::resilience::retry::{REPLAY_LIMIT, is_safe};
use shared::service::Exchange;
use shared::stop::Stop;
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use crate::access_log::{AccessLog, flags};
use crate::address::is_private;
use crate::cache::{Cache, Found, Lead};
use crate::concurrency::{Concurrency, PerClient, Place, RefusedStreams};
use crate::engine::{Body, Engine};
use crate::identity::Identity;
use crate::policies::versions::Split;
use crate::policies::websocket;
use crate::rate::RateLimits;
use crate::routing::{Route, Table};

/// The state of the proxy, shared by the workers.
pub struct Gateway {
    /// Replaced at each reload.
    pub table: Arc<ArcSwap<Table>>,
    pub identity: Identity,
    pub rates: RateLimits,
    pub concurrency: Concurrency,
    /// Makes sure that the warning about a proxy outside `trusted_proxies` is logged once.
    pub untrusted_proxy: Once,
    pub cache: Arc<Cache>,
    /// The memory, in bytes, for bodies that are buffered for a retry.
    pub kept_bodies: Semaphore,
}

impl Gateway {
    /// Counts a request that the gateway handles itself.
    pub fn check_rate(&self, request: &HttpRequest) -> Result<(), Problem> {
        self.rates.check(None, self.client(request), request).map(drop)
    }

    /// The client's address.
    pub fn client(&self, request: &HttpRequest) -> IpAddr {
        self.client_of(request, &self.table.load())
    }

    /// The client's address. Warns once if it seems to be the address of an untrusted proxy, because then all clients
    /// behind this proxy count as one.
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

/// The time that a client has to send its body.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The time that the replicas have to answer, unless the route or `Prefer: wait` allows more. It starts when the whole
/// request has arrived, so that a slow client does not use it up.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Forwards a request to a replica of the service that the path routes to.
pub async fn proxy(
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
    engine: Data<Engine>,
    log: Option<Rc<AccessLog>>,
) -> Result<HttpResponse, Problem> {
    let table = gateway.table.load_full();
    let client = gateway.client_of(&request, &table);
    let path = match path::checked(&request) {
        Ok(path) => path,
        // An HTTP/2 connection stays open.
        Err(problem) => {
            return gateway.rates.check(None, client, &request).map(|_| refuse_and_close(&problem));
        }
    };
    gateway.rates.check_token(client, &request)?;
    let identified = gateway.identity.caller(&request).await;
    // A request with a bad token counts too, against the client's address.
    let rate = gateway.rates.check(identified.as_ref().ok().and_then(Option::as_ref), client, &request)?;
    let caller = identified?;
    let person = caller.as_ref().map(|caller| caller.id);
    log.iter().for_each(|log| log.person(person));
    let route = table.route(path).ok_or_else(Problem::not_found)?;
    route.entry.access.check(caller.as_ref())?;
    let socket = match &route.entry.websocket {
        Some(limits) if websocket::is_wanted(&request) => {
            websocket::check_origin(&request, route.entry.cors.as_ref())?;
            let place = place("streams", &gateway.concurrency.streams, person, client)?;
            Some(upgrade::Socket::new(limits, caller.as_ref(), place))
        }
        _ => None,
    };
    let now = Instant::now();
    let streams = &gateway.concurrency.streams;
    let refused_streams = &gateway.concurrency.refused_streams;
    if request.method() == Method::GET
        && socket.is_none()
        && refused_streams.contains(person, client, path, now)
        && streams.is_full(person, client)
    {
        return Err(too_many("event streams"));
    }
    let exchange = Exchange::of(&request);
    let mut lead = None;
    if route.entry.cache && socket.is_none() {
        match Box::pin(cached::find(&request, route, &gateway)).await {
            Some(Found::Answer(answer)) => {
                let mut response = answer.response(request.headers());
                rate.show(response.headers_mut());
                exchange.iter().for_each(|exchange| exchange.count_under(&route.label));
                return Ok(response);
            }
            Some(Found::Lead(new)) => lead = Some(new),
            Some(Found::Pass) | None => {}
        }
    }
    let wait = wait_of(&request, route);
    let waiting = wait.and_then(|_| gateway.concurrency.waits.enter(person, client));
    let granted = wait.filter(|_| waiting.is_some()).unwrap_or_default();
    let head_timeout = Duration::from_secs(route.entry.head_timeout_s).max(granted);
    let dropped: &[&str] = if wait.is_some() && waiting.is_none() { &["prefer"] } else { &[] };
    let upload_end = now + UPLOAD_TIMEOUT;
    let mut payload = Some(payload);
    let (mut upload, (body, _kept)) = match payload.take_if(|_| has_body(&request)) {
        // `Content-Length: 0` is passed on.
        None if request.headers().contains_key(header::CONTENT_LENGTH) => {
            (None, (Body::Kept(Bytes::new()), None))
        }
        None => (None, (Body::None, None)),
        Some(payload) => {
            // This place counts toward the client's own limit. In the queue of the service, slow clients would block
            // other clients.
            let upload = place("uploads", &gateway.concurrency.uploads, person, client)?;
            let body = body_of(&request, payload, &gateway.kept_bodies);
            let body = Box::pin(tokio::time::timeout(UPLOAD_TIMEOUT, body)).await;
            (Some(upload), body.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))??)
        }
    };
    // A streamed body has not arrived yet.
    let is_streamed = matches!(body, Body::Streaming(..));
    let begin = if is_streamed { upload_end } else { Instant::now() };
    if !is_streamed {
        upload = None;
    }
    let _permit = match waiting.is_some() || is_streamed {
        true => None,
        false => {
            Some(route.enter(&request).await.map_err(|_| Problem::unavailable(1).flagged(flags::OVERFLOW))?)
        }
    };
    let mut plan = attempts::Plan {
        head: headers::request_head(&request, path, client, &table, dropped),
        affinity: affinity(&request, route, client),
        version: route.split.as_ref().map(|split| version_of(&request, split)),
        repeatable: is_safe(request.method()) || has_key(&request, route),
        is_upgrade: socket.is_some(),
        is_head: request.method() == Method::HEAD,
        awaits_continue: exchange.as_ref().is_some_and(|exchange| exchange.awaits_continue()),
        client: exchange.clone().filter(|_| request.version() == Version::HTTP_11),
        head_timeout,
        upload_end,
        end: begin + TIMEOUT.max(head_timeout),
        lasts_long: waiting.is_some() || is_streamed,
        log: log.clone(),
    };
    if plan.is_upgrade {
        headers::upgrade(&mut plan.head);
    }
    if let Some(copy) = route.split.as_ref().filter(|_| !plan.is_upgrade).and_then(|split| split.copy()) {
        mirror::send(&engine, route, &plan, &body, copy);
    }
    exchange.iter().for_each(|exchange| exchange.count_under(&route.label));
    let answered = attempts::run(&engine, route, plan, body).await;
    drop(upload);
    let mut response = match answered {
        Ok((answer, picked)) if answer.status == StatusCode::SWITCHING_PROTOCOLS => {
            let client = upgrade::Client { request: &request, exchange, payload, gateway: &gateway, log };
            upgrade::switch(answer, picked, socket, route, client)?
        }
        Ok((answer, mut picked)) => match cached::kept(&answer, lead, &table) {
            Some(kept) => Box::pin(cached::store(answer, picked, route, kept)).await?,
            None => {
                if answer.status.is_success() || answer.status.is_redirection() {
                    cached::forget(&request, route, &gateway);
                }
                let (mut stream, mut stop) = (None, None);
                if answer.is_event_stream && !answer.body.is_over() {
                    picked.exempt_from_limit();
                    let place = place("event streams", streams, person, client);
                    if place.is_err() {
                        refused_streams.remember(person, client, path, Instant::now());
                    }
                    stream = Some(place?);
                    stop = request.app_data::<Data<Stop>>().map(|stop| stop.get_ref().clone());
                }
                let client = headers::Client { exchange, stop, stream };
                headers::response(answer, picked, &route.entry.service, client)
            }
        },
        Err(problem) => {
            // After a mistake of the client, the next request asks the service.
            lead.filter(|_| ResponseError::status_code(&problem).is_server_error())
                .into_iter()
                .for_each(Lead::pass);
            ResponseError::error_response(&problem)
        }
    };
    rate.show(response.headers_mut());
    Ok(response)
}

/// Closes the connection after an ambiguous request, because it is unknown where the next request begins.
fn refuse_and_close(problem: &Problem) -> HttpResponse {
    let mut response = ResponseError::error_response(problem);
    response.head_mut().set_connection_type(ConnectionType::Close);
    response
}

/// Whether an idempotency key makes the request safe to retry.
fn has_key(request: &HttpRequest, route: &Route) -> bool {
    route.entry.honours_keys
        && request.method() == Method::POST
        && request.headers().contains_key("idempotency-key")
}

/// The timeout for `Prefer: wait=N`: N + 5 s, if the route supports it.
fn wait_of(request: &HttpRequest, route: &Route) -> Option<Duration> {
    if !(route.entry.prefer_wait && request.method() == Method::POST) {
        return None;
    }
    let wait = <PreferWait as actix_web::FromRequest>::extract(request).into_inner().ok()?.0?;
    Some(wait + Duration::from_secs(5))
}

/// A place for one more of the client's `what`; 429 if the client has reached `limit`.
fn place(what: &str, limit: &PerClient, person: Option<Uuid>, client: IpAddr) -> Result<Place, Problem> {
    limit.enter(person, client).ok_or_else(|| too_many(what))
}

fn too_many(what: &str) -> Problem {
    let detail = format!("Too many {what} are open; close one, or wait.");
    Problem::new(codes::RATE_LIMITED, detail).retry_after(RefusedStreams::RETRY_AFTER)
}

/// The key for consistent hashing; empty for other strategies.
fn affinity(request: &HttpRequest, route: &Route, client: IpAddr) -> String {
    if route.picker.strategy() != Strategy::ConsistentHash {
        return String::new();
    }
    let header = route.entry.hash_header.as_deref().and_then(|name| request.headers().get(name));
    header.and_then(|value| value.to_str().ok()).map_or_else(|| client.to_string(), str::to_owned)
}

/// The version of the service that the request is for.
fn version_of(request: &HttpRequest, split: &Split) -> String {
    let header = split.entry.sticky_header.as_deref().and_then(|name| request.headers().get(name));
    split.choose(header.and_then(|value| value.to_str().ok())).to_owned()
}

/// The client's address: the last address that is not a trusted proxy, in the list of `X-Forwarded-For` and then the
/// connection's peer.
fn client_address(request: &HttpRequest, table: &Table) -> IpAddr {
    let peer = peer_address(request);
    if !table.is_trusted(&peer) {
        return peer;
    }
    let lists =
        request.headers().get_all(header::X_FORWARDED_FOR).map(|value| value.to_str().unwrap_or_default());
    let addresses: Vec<&str> = lists.flat_map(|list| list.split(',')).collect();
    // Read from right to left: the client may have forged the addresses to the left of the first untrusted one.
    let mut addresses = addresses.into_iter().rev().map_while(|text| text.trim().parse().ok());
    addresses.find(|address| !table.is_trusted(address)).unwrap_or(peer)
}

fn peer_address(request: &HttpRequest) -> IpAddr {
    request.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip())
}

/// Buffers a small body for a retry, if there is memory for it. Streams all other bodies.
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
