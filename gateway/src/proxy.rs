//! The reverse proxy: the life of a request, from the client to a replica and back.
//!
//! 1. [`Arrival`]: determine the client's address, and find the route of the path in the current
//!    [table](crate::routing). The route counts the request, also if a later step refuses it.
//! 2. [`path`]: refuse an ambiguous path, host or header name (path traversal, request smuggling). The connection has
//!    already refused a request whose end is ambiguous.
//! 3. [`rate`](crate::rate): count a request with a token, by the address of the client.
//! 4. [`identity`](crate::identity): verify the token. A request without one passes; the services decide.
//! 5. [`rate`](crate::rate): apply the rate limit of the user, or of the address without a token. Then check the
//!    `access` of the route.
//! 6. For a WebSocket: check its `Origin`, and take a place among the client's streams.
//! 7. [`cached`]: if the cache has a response, the request ends here.
//! 8. [`body`]: read a small body. Then take a place in the queue of the service. Uploads, event streams and requests
//!    that wait have limits of their own ([`concurrency`](crate::concurrency)).
//! 9. Choose the version of the service. [`headers`]: build the head for the replica, without hop-by-hop headers and
//!    with those of a proxy. Send a copy of the request to the [`mirror`].
//! 10. [`attempts`]: pick a replica, send the request, and retry if the policy allows it. [`canary`]: tell the canary
//!     how each attempt ended.
//! 11. [`headers`]: change the headers of the response in the same way. After a 101, [`upgrade`] passes on bytes as
//!     they arrive.
//!
//! Steps 1 to 5 are in this file (3 to 5 in `Gateway::admit` and `route`), the others begin in [`routed`]. Between 1 and
//! 2, [`edge`](crate::edge) applies the policies of the route.

pub mod attempts;
pub mod body;
pub mod cached;
pub mod canary;
pub mod headers;
pub mod mirror;
pub mod path;
pub mod routed;
pub mod upgrade;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Once};

use actix_web::http::{ConnectionType, StatusCode, header};
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use arc_swap::ArcSwap;
use shared::auth::Caller;
use shared::problem::Problem;
use shared::service::{Exchange, is_acceptable};
use tokio::sync::Semaphore;

use self::routed::Routed;
use crate::access_log::AccessLog;
use crate::address::{client_address, is_private, peer_address};
use crate::cache::Cache;
use crate::concurrency::Concurrency;
use crate::engine::Engine;
use crate::identity::Identity;
use crate::rate::{Rate, RateLimits};
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
    pub kept_bodies: Arc<Semaphore>,
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

    /// Verifies the token of a request, and applies the rate limits. A request with a bad token counts, too: against
    /// the client's address.
    async fn admit(&self, request: &HttpRequest, client: IpAddr) -> Result<Admitted, Problem> {
        self.rates.check_token(client, request)?;
        let caller = self.identity.caller(request).await;
        let rate = self.rates.check(caller.as_ref().ok().and_then(Option::as_ref), client, request)?;
        Ok(Admitted { caller, rate })
    }
}

/// A request as it arrives. The table is loaded once, so that a reload changes nothing for this request.
pub struct Arrival<'a> {
    pub gateway: &'a Gateway,
    pub table: &'a Table,
    pub request: &'a HttpRequest,
    pub client: IpAddr,
    /// A problem if the request is ambiguous. Then it has no route.
    pub path: Result<&'a str, Problem>,
    pub route: Option<&'a Route>,
    /// `None` without a connection, as in a test.
    pub exchange: Option<Rc<Exchange>>,
    /// `None` if the log of requests is off.
    pub log: Option<Rc<AccessLog>>,
}

impl<'a> Arrival<'a> {
    /// Counts the request under the label of its route.
    pub fn new(gateway: &'a Gateway, table: &'a Table, request: &'a HttpRequest) -> Self {
        let log = AccessLog::of(request);
        let client = log.as_ref().map_or_else(|| gateway.client_of(request, table), |log| log.client());
        let path = path::checked(request);
        let route = path.as_ref().ok().and_then(|path| table.route(path));
        let exchange = Exchange::of(request);
        if let (Some(exchange), Some(route)) = (&exchange, route) {
            exchange.count_under(&route.label);
        }
        Self { gateway, table, request, client, path, route, exchange, log }
    }

    /// Counts the request, without its user, toward the rate limit of its address.
    pub fn check_rate(&self) -> Result<Rate, Problem> {
        self.gateway.rates.check(None, self.client, self.request)
    }
}

/// A request within the rate limits, which may still be refused.
struct Admitted {
    /// `None` without a token; a problem if the token is bad.
    caller: Result<Option<Caller>, Problem>,
    rate: Rate,
}

/// Forwards a request to a replica of the service that the path routes to.
pub async fn proxy(
    arrival: &Arrival<'_>,
    payload: Payload,
    engine: &Engine,
) -> Result<HttpResponse, Problem> {
    let path = match &arrival.path {
        Ok(path) => path,
        Err(problem) => return arrival.check_rate().map(|_| refuse_and_close(problem)),
    };
    let Admitted { caller, rate } = arrival.gateway.admit(arrival.request, arrival.client).await?;
    let answered = match route(arrival, path, caller) {
        Ok(routed) => routed.respond(payload, engine).await,
        Err(problem) => Err(problem),
    };
    // A refusal has the `RateLimit` headers, too.
    let mut response = answered.unwrap_or_else(|problem| ResponseError::error_response(&problem));
    rate.add_headers(response.headers_mut());
    Ok(response)
}

/// Checks the `access` of the route, and `Accept`; 404 without a route.
fn route<'a>(
    arrival: &'a Arrival<'a>,
    path: &'a str,
    caller: Result<Option<Caller>, Problem>,
) -> Result<Routed<'a>, Problem> {
    let caller = caller?;
    if let Some(log) = &arrival.log {
        log.set_person(caller.as_ref().map(|caller| caller.id));
    }
    let route = arrival.route.ok_or_else(Problem::not_found)?;
    route.entry.access.check(caller.as_ref())?;
    if !is_acceptable(arrival.request) {
        return Err(Problem::of_status(StatusCode::NOT_ACCEPTABLE));
    }
    Ok(Routed { arrival, route, path, caller })
}

/// Closes an HTTP/1.1 connection after a refused request, because its client is broken or hostile. An HTTP/2 connection
/// stays open, because other requests share it.
fn refuse_and_close(problem: &Problem) -> HttpResponse {
    let mut response = ResponseError::error_response(problem);
    response.head_mut().set_connection_type(ConnectionType::Close);
    response
}
