//! Routing: `gateway.toml`, and the table that maps a path to a service by its longest prefix of whole
//! segments.

pub mod access; // who may use a route
pub mod path; // paths that can be read in one way only
mod place; // the line and column of what is wrong with the file
pub mod priority; // which requests a busy service refuses first
mod restart; // keys that are read only at the start
pub mod schema; // the JSON schema of the file, for editors
pub mod tls; // the port for clients with TLS

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::http::header::HeaderName;
use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::balancer::{Picker, Pool, Strategy};
use shared::digest;
use shared::metrics::Readings;
use shared::request::is_at_or_below;
use shared::resilience::{Budget, Busy, Limiter, Permit};
use shared::stop::{Stop, Stopper};
use shared::tls::Certificates;

use self::access::Access;
use self::priority::Priority;
use self::tls::TlsEntry;
use crate::oidc::OidcEntry;
use crate::policies::Policies;
use crate::policies::cors::Cors;
use crate::policies::versions::{Split, State, Versions};
use crate::policies::websocket::{self, WebSocket};
use crate::registrations::is_name;

/// `gateway.toml`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Requests per second of one user, or of one address without a token.
    #[serde(default = "default_rate")]
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub rate_per_second: u32,
    /// Burst size of the same token bucket.
    #[serde(default = "default_burst")]
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub rate_burst: u32,
    /// Requests with a token per second of one address, before their tokens are verified.
    #[serde(default = "default_token_rate")]
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub token_rate_per_second: u32,
    /// Connections of one address (of one /64 network, with IPv6) that is not a trusted proxy, and its concurrent requests
    /// over HTTP/2.
    #[serde(default = "default_connections")]
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub connections_per_client: usize,
    /// Open event streams of one user.
    #[serde(default = "default_long_per_person")]
    pub streams_per_person: usize,
    /// Open event streams of one address (of one /64 network, with IPv6).
    #[serde(default = "default_long_per_client")]
    pub streams_per_client: usize,
    /// Requests of one user that wait with `Prefer: wait`. Above this limit, the gateway removes the preference, so the
    /// service answers immediately.
    #[serde(default = "default_long_per_person")]
    pub waits_per_person: usize,
    /// The same for one address (one /64 network, with IPv6).
    #[serde(default = "default_long_per_client")]
    pub waits_per_client: usize,
    /// Requests of one user, or of one address, whose body has not arrived yet.
    #[serde(default = "default_long_per_client")]
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub uploads_per_client: usize,
    /// Memory in MiB for bodies that are buffered for a retry. Above this limit, bodies are streamed and not retried.
    #[serde(default = "default_kept_memory")]
    #[schemars(range(min = 0, max = MAX_MIB))]
    pub kept_bodies_mib: usize,
    /// Memory in MiB for the answers of routes with `cache`.
    #[serde(default = "default_cache_memory")]
    #[schemars(range(min = 0, max = MAX_MIB))]
    pub cache_mib: usize,
    /// Headers that are removed from requests, so that no service trusts them.
    #[serde(default = "default_strip_headers")]
    pub strip_headers: Vec<String>,
    /// Networks of the proxies in front of the gateway whose `X-Forwarded-For` is trusted.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Networks of instances. An instance with an address outside these networks is refused.
    #[serde(default = "default_networks")]
    #[schemars(with = "Vec<String>")]
    pub instance_networks: Vec<ipnet::IpNet>,
    /// A second port, with TLS.
    #[serde(default)]
    pub tls: Option<TlsEntry>,
    /// An external issuer of tokens.
    #[serde(default)]
    pub oidc: Option<OidcEntry>,
    /// The order does not matter, because the longest matching prefix is used.
    pub routes: Vec<RouteEntry>,
}

/// One route in the file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteEntry {
    pub id: String,
    /// Path prefix; matches whole segments. `/` matches only the path `/`, so that a service's own paths, such as
    /// `/metrics`, stay behind the gateway.
    pub prefix: String,
    /// As its replicas register: letters, digits, `-`, `_` and `.`.
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,128}$"))]
    pub service: String,
    /// Initial strategy; an admin can switch it.
    #[serde(default)]
    pub strategy: Strategy,
    /// Header with the key for consistent hashing; the client's address if absent.
    #[serde(default)]
    pub hash_header: Option<String>,
    /// Seconds without a byte sent or received before the head of the response is complete. Then 504.
    #[serde(default = "default_head_timeout")]
    #[schemars(range(min = 1, max = 3600))]
    pub head_timeout_s: u64,
    /// Whether `Prefer: wait=N` makes the gateway wait N + 5 s for the head of the response.
    #[serde(default)]
    pub prefer_wait: bool,
    /// POSTs per second from one address to exactly this path, regardless of the user. For expensive requests.
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub post_rate_per_second: Option<u32>,
    /// Whether the service supports `Idempotency-Key`, so that a POST with a key may be retried.
    #[serde(default = "default_true")]
    pub honours_keys: bool,
    /// Whether the admin port shows the route and can switch its strategy. A service without a listed route is not in the
    /// merged API document.
    #[serde(default = "default_true")]
    pub listed: bool,
    /// Who may use the route. The gateway refuses everybody else; the service decides the rest.
    #[serde(default)]
    pub access: Access,
    /// The longest body of a request, in KiB. Without it, the service decides.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub body_limit_kib: Option<u64>,
    /// Requests of the route that wait for the head of their answer, in this gateway. Without it, only the limit of
    /// the service counts.
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_COUNT))]
    pub max_in_flight: Option<usize>,
    /// Requests that wait at most 100 ms for one of `max_in_flight`.
    #[serde(default = "default_queue")]
    #[schemars(range(min = 0, max = MAX_COUNT))]
    pub max_queue: usize,
    /// Which requests a busy service refuses first. Without it: lists, then other reads, then everything else.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// Whether answers are compressed for clients that accept it. Not for answers that hold a secret beside something
    /// that a stranger can choose: their length would give the secret away.
    #[serde(default)]
    pub compress: bool,
    /// Whether answers are stored for as long as their `Cache-Control` allows, and equal requests wait for one answer. Not
    /// for answers that differ by something that neither `Authorization` nor `Vary` names.
    #[serde(default)]
    pub cache: bool,
    /// Pages of other origins that may use the route; none without it.
    #[serde(default)]
    pub cors: Option<Cors>,
    /// Whether clients may open WebSockets; not without it. Pages of other origins need the permission of `cors`.
    #[serde(default)]
    pub websocket: Option<WebSocket>,
    /// The shares of the versions of the service; without it, all replicas are equal.
    #[serde(default)]
    pub versions: Option<Versions>,
}

/// The largest rate and the largest count. A token bucket measures a rate as nanoseconds for each request.
const MAX_COUNT: u64 = 1_000_000_000;
/// The largest memory: a TiB.
const MAX_MIB: u64 = 1024 * 1024;

fn default_rate() -> u32 {
    200
}

fn default_burst() -> u32 {
    400
}

fn default_token_rate() -> u32 {
    1000
}

fn default_connections() -> usize {
    200
}

fn default_long_per_person() -> usize {
    5
}

fn default_long_per_client() -> usize {
    50
}

fn default_kept_memory() -> usize {
    32
}

fn default_cache_memory() -> usize {
    16
}

fn default_strip_headers() -> Vec<String> {
    ["x-user-id", "x-user-email", "x-user-roles"].map(str::to_owned).to_vec()
}

fn default_networks() -> Vec<ipnet::IpNet> {
    ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"]
        .iter()
        .filter_map(|network| network.parse().ok())
        .collect()
}

fn default_head_timeout() -> u64 {
    5
}

fn default_queue() -> usize {
    128
}

fn default_true() -> bool {
    true
}

/// A route in the table, with the state of its service.
#[derive(Debug)]
pub struct Route {
    pub entry: RouteEntry,
    /// The prefix. The metrics count the requests of the route with this label.
    pub label: Arc<str>,
    pub pool: Arc<Pool>,
    pub picker: Picker,
    /// Shared by all routes of the service.
    pub service_limits: Arc<ServiceLimits>,
    /// The route's own limit. A reload begins to count anew.
    limiter: Option<Limiter>,
    /// `None` if the versions of the service have no shares. The state of a canary survives a reload.
    pub split: Option<Arc<Split>>,
    /// `None` if the route asks for nothing beyond the proxy.
    pub policies: Option<Policies>,
}

/// Permission to send a request.
#[derive(Debug)]
pub struct Admission {
    _route: Option<Permit>,
    _service: Option<Permit>,
}

impl Route {
    /// Takes a place in the route's own limit, and one in the limit of the service. A request that `lasts_long` takes
    /// none of the service, because there it would block the requests of other routes.
    pub async fn enter(&self, request: &HttpRequest, lasts_long: bool) -> Result<Admission, Busy> {
        let route = match &self.limiter {
            Some(limiter) => Some(limiter.enter().await?),
            None => None,
        };
        let service = if lasts_long { None } else { Some(self.enter_service(request).await?) };
        Ok(Admission { _route: route, _service: service })
    }

    async fn enter_service(&self, request: &HttpRequest) -> Result<Permit, Busy> {
        let priority = self.entry.priority.unwrap_or_else(|| Priority::of(request, &self.entry));
        self.service_limits.limiter.enter_above(priority.reserve()).await
    }
}

/// Concurrency limit and retry budget of one service.
#[derive(Debug)]
pub struct ServiceLimits {
    pub limiter: Limiter,
    pub budget: Budget,
}

impl ServiceLimits {
    /// Limits: 1,024 requests that wait for the head of their response, and 128 more that wait for at most 100 ms to be
    /// among them.
    pub fn new(now: Instant) -> Self {
        Self { limiter: Limiter::new(MAX_IN_FLIGHT, 128, QUEUE_TIMEOUT), budget: Budget::new(now) }
    }
}

const MAX_IN_FLIGHT: usize = 1024;
const QUEUE_TIMEOUT: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Table {
    pub config: GatewayConfig,
    /// Short hash of the file's text.
    pub hash: String,
    /// Sorted by length of prefix, longest first.
    pub routes: Vec<Route>,
    /// Signals that another table is in force.
    replaced: (Stopper, Stop),
}

impl GatewayConfig {
    /// Reads and parses the file at `path`, which an error names.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        text.and_then(|text| Self::parse(&text)).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// Parses `gateway.toml`. An error names the line and the column.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| place::describe_parse_error(text, &error))?;
        let valid = config.validate();
        valid.map_err(|InvalidValue { path, why }| place::describe_invalid_value(text, &path, &why))?;
        Ok(config)
    }

    /// Reads the certificates and keys that the file names, and checks that those of the issuer's authorities can be read.
    /// `folder` is that of the file.
    pub fn read_files(&self, folder: &Path) -> Result<Option<Certificates>, String> {
        self.oidc.as_ref().map_or(Ok(()), OidcEntry::check_ca_file)?;
        self.read_certificates(folder)
    }

    pub fn read_certificates(&self, folder: &Path) -> Result<Option<Certificates>, String> {
        self.tls.as_ref().map(|tls| tls.read(folder)).transpose()
    }

    /// Finds the first value that has the right type and yet cannot be used.
    fn validate(&self) -> Result<(), InvalidValue> {
        if self.routes.is_empty() {
            return Err(InvalidValue::at("routes", "there must be a route"));
        }
        check_ranges(&self.limits())?;
        if !self.strip_headers.iter().all(|name| is_header_name(name)) {
            return Err(InvalidValue::at("strip_headers", "must be names of headers"));
        }
        if let Some(oidc) = &self.oidc {
            oidc.validate().map_err(|(key, why)| InvalidValue::at(key, why).below(&["oidc"]))?;
        }
        if let Some(tls) = &self.tls {
            tls.validate().map_err(|invalid| invalid.below(&["tls"]))?;
        }
        let (mut ids, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
        for (index, route) in self.routes.iter().enumerate() {
            let valid = if !ids.insert(&route.id) {
                Err(InvalidValue::at("id", "another route has this id"))
            } else if !prefixes.insert(&route.prefix) {
                Err(InvalidValue::at("prefix", "another route has this prefix"))
            } else {
                route.validate()
            };
            valid.map_err(|invalid| invalid.below(&["routes", &index.to_string()]))?;
        }
        Ok(())
    }

    fn limits(&self) -> [Limit; 7] {
        [
            ("rate_per_second", self.rate_per_second.into(), 1..=MAX_COUNT),
            ("rate_burst", self.rate_burst.into(), 1..=MAX_COUNT),
            ("token_rate_per_second", self.token_rate_per_second.into(), 1..=MAX_COUNT),
            ("connections_per_client", self.connections_per_client as u64, 1..=MAX_COUNT),
            ("uploads_per_client", self.uploads_per_client as u64, 1..=MAX_COUNT),
            ("kept_bodies_mib", self.kept_bodies_mib as u64, 0..=MAX_MIB),
            ("cache_mib", self.cache_mib as u64, 0..=MAX_MIB),
        ]
    }
}

const NO_HEADER_NAME: &str = "must be the name of a header";

fn is_header_name(name: &str) -> bool {
    name.parse::<HeaderName>().is_ok()
}

/// A number in the file: its key, its value, and the range in which it can be used.
type Limit = (&'static str, u64, RangeInclusive<u64>);

/// Finds the first number that is not in its range.
fn check_ranges(limits: &[Limit]) -> Result<(), InvalidValue> {
    let outside = limits.iter().find(|(_, value, range)| !range.contains(value));
    let Some((key, _, range)) = outside else { return Ok(()) };
    Err(match range.end() {
        &u64::MAX => InvalidValue::at(key, format!("must be at least {}", range.start())),
        end => InvalidValue::at(key, format!("must be {} to {end}", range.start())),
    })
}

impl RouteEntry {
    fn validate(&self) -> Result<(), InvalidValue> {
        path::check_prefix(&self.prefix).map_err(|why| InvalidValue::at("prefix", why))?;
        if !is_name(&self.service) {
            let why = "must be 1 to 128 letters (A to Z), digits, -, _ or .";
            return Err(InvalidValue::at("service", why));
        }
        check_ranges(&self.limits())?;
        if !self.hash_header.as_deref().is_none_or(is_header_name) {
            return Err(InvalidValue::at("hash_header", NO_HEADER_NAME));
        }
        if let Some(cors) = &self.cors {
            cors.validate().map_err(|(key, why)| InvalidValue::at(key, why).below(&["cors"]))?;
        }
        if let Some(websocket) = &self.websocket {
            websocket.validate().map_err(|(key, why)| InvalidValue::at(key, why).below(&["websocket"]))?;
        }
        if let Some(versions) = &self.versions {
            if self.cache {
                let why = "a cached answer of one version would go to the clients of all";
                return Err(InvalidValue::at("cache", why));
            }
            if !versions.sticky_header.as_deref().is_none_or(is_header_name) {
                return Err(InvalidValue::at("sticky_header", NO_HEADER_NAME).below(&["versions"]));
            }
            versions.validate().map_err(|(key, why)| InvalidValue::at(key, why).below(&["versions"]))?;
        }
        Ok(())
    }

    /// A limit that is not in the file has a value in its range.
    fn limits(&self) -> [Limit; 5] {
        [
            ("head_timeout_s", self.head_timeout_s, 1..=3600),
            ("post_rate_per_second", self.post_rate_per_second.map_or(1, u64::from), 1..=MAX_COUNT),
            ("body_limit_kib", self.body_limit_kib.unwrap_or(1), 1..=u64::MAX),
            ("max_in_flight", self.max_in_flight.map_or(1, |max| max as u64), 1..=MAX_COUNT),
            ("max_queue", self.max_queue as u64, 0..=MAX_COUNT),
        ]
    }

    /// `None` if the request asks for no WebSocket, or the route has none.
    pub fn websocket_for(&self, request: &HttpRequest) -> Option<&WebSocket> {
        self.websocket.as_ref().filter(|_| websocket::is_wanted(request))
    }

    /// Whether a WebSocket of the `former` route could be opened on this one, too.
    fn continues(&self, former: &Self) -> bool {
        let identity =
            |entry: &Self| (entry.id.clone(), entry.prefix.clone(), entry.service.clone(), entry.access);
        self.websocket.is_some() && identity(self) == identity(former)
    }
}

/// A value in the file that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidValue {
    /// The keys and indices that lead to the value.
    path: Vec<String>,
    why: String,
}

impl InvalidValue {
    pub fn at(key: &str, why: impl Into<String>) -> Self {
        Self { path: vec![key.to_owned()], why: why.into() }
    }

    /// The same, seen from a table further up.
    pub fn below(mut self, path: &[&str]) -> Self {
        self.path.splice(0..0, path.iter().map(|key| (*key).to_owned()));
        self
    }
}

impl Table {
    /// Parses `text`, and makes a table with the `pool` and the `limits` of each service.
    pub fn read(
        text: &str,
        pool: impl FnMut(&str) -> Arc<Pool>,
        limits: impl FnMut(&str) -> Arc<ServiceLimits>,
    ) -> Result<Self, String> {
        GatewayConfig::parse(text).map(|config| Self::new(config, text, pool, limits))
    }

    /// The same for a `text` that is already parsed.
    pub fn new(
        config: GatewayConfig,
        text: &str,
        mut pool: impl FnMut(&str) -> Arc<Pool>,
        mut limits: impl FnMut(&str) -> Arc<ServiceLimits>,
    ) -> Self {
        let now = Instant::now();
        let mut routes: Vec<Route> = config
            .routes
            .iter()
            .map(|entry| Route {
                pool: pool(&entry.service),
                picker: Picker::new(entry.strategy),
                service_limits: limits(&entry.service),
                label: entry.prefix.as_str().into(),
                limiter: entry.max_in_flight.map(|max| Limiter::new(max, entry.max_queue, QUEUE_TIMEOUT)),
                policies: Policies::new(entry.cors.clone(), entry.compress, entry.body_limit_kib),
                split: entry.versions.clone().map(|versions| Arc::new(Split::new(versions, now))),
                entry: entry.clone(),
            })
            .collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.entry.prefix.len()));
        let hash = digest::sha256(text.as_bytes())[..12].to_owned();
        Self { config, hash, routes, replaced: Stop::pair() }
    }

    /// Whether `peer` is a proxy in front of the gateway, so that its `X-Forwarded-For` is trusted.
    pub fn is_trusted(&self, peer: &IpAddr) -> bool {
        let peer = peer.to_canonical();
        // A network of IPv4 addresses may be written in their mapped form.
        let mapped = match peer {
            IpAddr::V4(peer) => IpAddr::from(peer.to_ipv6_mapped()),
            IpAddr::V6(_) => peer,
        };
        let networks = &self.config.trusted_proxies;
        networks.iter().any(|network| network.contains(&peer) || network.contains(&mapped))
    }

    /// The route with the longest prefix of `path`.
    pub fn route(&self, path: &str) -> Option<&Route> {
        self.routes.iter().find(|route| {
            let prefix = route.entry.prefix.as_str();
            is_at_or_below(path, prefix) && (prefix != "/" || path == "/")
        })
    }

    /// Keeps the strategies that an admin has switched in the table `before`, and the state of its canaries, unless the
    /// file's have changed or the route has another service.
    pub fn take_switches_of(&mut self, before: &Self) {
        for route in &mut self.routes {
            let is_same =
                |other: &RouteEntry| other.id == route.entry.id && other.service == route.entry.service;
            let Some(same) = before.routes.iter().find(|other| is_same(&other.entry)) else { continue };
            if same.entry.strategy == route.entry.strategy {
                route.picker.switch(same.picker.strategy());
            }
            if same.entry.versions == route.entry.versions {
                route.split.clone_from(&same.split);
            }
        }
    }

    /// Adds gauges for the versions of routes.
    pub fn measure(&self, readings: &mut Readings) {
        for (route, split) in self.routes.iter().filter_map(|route| Some((route, route.split.as_ref()?))) {
            let id = route.entry.id.as_str();
            for (version, share) in split.shares() {
                let labels = [("route_id", id), ("version", version.as_str())];
                readings.gauge("gateway_version_share", "Share of the requests, 0 to 1.", &labels, share);
            }
            if let Some(state) = split.seen() {
                let rolled_back = if state == State::RolledBack { 1.0 } else { 0.0 };
                let help = "1 if the canary was rolled back because of its errors.";
                readings.gauge("gateway_canary_rolled_back", help, &[("route_id", id)], rolled_back);
            }
        }
    }

    /// Another table is in force.
    pub fn replaced(&self) {
        self.replaced.0.stop();
    }

    /// Waits until a table is in force that has no such route for WebSockets.
    pub async fn lost(current: Arc<ArcSwap<Self>>, route: RouteEntry) {
        let mut table = current.load_full();
        while table.routes.iter().any(|other| other.entry.continues(&route)) {
            table.replaced.1.requested().await;
            table = current.load_full();
        }
    }

    /// The listed route `id`.
    pub fn named(&self, id: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.entry.listed && route.entry.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::balancer::Settings;

    fn table(text: &str) -> Result<Table, String> {
        let limits = Arc::new(ServiceLimits::new(Instant::now()));
        Table::read(text, |service| Pool::new(service, Settings::default()), |_| limits.clone())
    }

    fn text(prefixes: &[&str]) -> String {
        prefixes
            .iter()
            .map(|prefix| format!("[[routes]]\nid = \"{prefix}\"\nprefix = \"{prefix}\"\nservice = \"s\"\n"))
            .collect()
    }

    #[test]
    fn a_prefix_matches_whole_segments_and_the_longest_wins() {
        let table = table(&text(&["/api/users", "/api/users/special"])).unwrap();
        let id = |path: &str| table.route(path).map(|route| route.entry.id.clone());
        assert_eq!(id("/api/users").as_deref(), Some("/api/users"));
        assert_eq!(id("/api/users/7").as_deref(), Some("/api/users"));
        assert_eq!(id("/api/users/special/7").as_deref(), Some("/api/users/special"));
        for other in ["/api/usersX", "/api/user", "/", "/api", "/API/users"] {
            assert_eq!(id(other), None, "{other}");
        }
    }

    #[test]
    fn the_route_of_the_root_takes_no_other_path() {
        let table = table(&text(&["/", "/shop"])).unwrap();
        let id = |path: &str| table.route(path).map(|route| route.entry.id.clone());
        assert_eq!(id("/").as_deref(), Some("/"));
        assert_eq!(id("/shop/orders").as_deref(), Some("/shop"));
        for other in ["/metrics", "/admin/outbox", "/shopX", "/api/nowhere", "//", "//metrics"] {
            assert_eq!(id(other), None, "{other}");
        }
    }

    #[test]
    fn a_bad_file_is_refused_with_the_line_and_column() {
        let bad = format!("{}strategy = \"by-magic\"\n", text(&["/a"]));
        let why = table(&bad).unwrap_err();
        assert!(why.starts_with("line 5, column 12: ") && why.contains("by-magic"), "{why}");
        let twice = table(&text(&["/a", "/a"])).unwrap_err();
        assert_eq!(twice, "line 6, column 1: routes.1.id: another route has this id");
        let endless = format!("{}head_timeout_s = 18446744073709551615\n", text(&["/a"]));
        for bad in ["", "routes = []", &text(&["a"]), &text(&["/a/"]), &endless] {
            assert!(table(bad).is_err(), "{bad}");
        }
        assert!(table(&format!("colour = \"red\"\n{}", text(&["/a"]))).unwrap_err().contains("colour"));
    }

    #[test]
    fn a_number_that_cannot_be_used_is_refused_with_its_range() {
        let top = |line: &str| table(&format!("{line}\n{}", text(&["/a"]))).map(drop);
        for (key, range) in [
            ("rate_per_second", [0, 1_000_000_001]),
            ("token_rate_per_second", [0, 1_000_000_001]),
            ("connections_per_client", [0, 1_000_000_001]),
            ("uploads_per_client", [0, 1_000_000_001]),
            ("kept_bodies_mib", [1_048_577, i64::MAX]),
            ("cache_mib", [1_048_577, i64::MAX]),
        ] {
            for value in range {
                let why = top(&format!("{key} = {value}")).unwrap_err();
                assert!(why.starts_with(&format!("line 1, column 1: {key}: must be ")), "{why}");
            }
        }
        let below = |line: &str| table(&format!("{}{line}\n", text(&["/a"]))).map(drop);
        for line in
            ["post_rate_per_second = 0", "max_in_flight = 0", "body_limit_kib = 0", "max_queue = 1000000001"]
        {
            assert!(below(line).unwrap_err().contains("must be "), "{line}");
        }
        for good in
            ["rate_per_second = 1000000000", "kept_bodies_mib = 0", "cache_mib = 0", "streams_per_client = 0"]
        {
            assert_eq!(top(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_service_has_a_name_that_its_replicas_can_register() {
        let named =
            |name: &str| table(&text(&["/a"]).replace("service = \"s\"", &format!("service = \"{name}\"")));
        for good in ["shop", "order-service", "a--b", "shop.v2", "A_1"] {
            assert!(named(good).is_ok(), "{good}");
        }
        for bad in ["", "élan", "a b", "a/b", &"a".repeat(129)] {
            let why = named(bad).map(drop).unwrap_err();
            assert!(why.starts_with("line 4, column 1: routes.0.service: must be "), "{why}");
        }
    }

    #[test]
    fn a_reload_keeps_a_switched_strategy_unless_the_file_names_another() {
        let (file, other) = (text(&["/a"]), format!("{}strategy = \"random\"\n", text(&["/a"])));
        let strategy = |table: &Table| table.routes[0].picker.strategy();
        let before = table(&file).unwrap();
        before.routes[0].picker.switch(Strategy::P2cEwma);
        let mut same = table(&file).unwrap();
        same.take_switches_of(&before);
        assert_eq!(strategy(&same), Strategy::P2cEwma);
        let mut changed = table(&other).unwrap();
        changed.take_switches_of(&before);
        assert_eq!(strategy(&changed), Strategy::Random);
    }

    #[test]
    fn a_route_that_has_another_service_after_a_reload_begins_its_canary_anew() {
        let canary = "versions = { weights = { v1 = 1 }, canary = { version = \"v2\" } }\n";
        let file = text(&["/a"]) + canary;
        let state = |table: &Table| table.routes[0].split.as_ref().and_then(|split| split.seen());
        let before = table(&file).unwrap();
        assert!(before.routes[0].split.as_ref().unwrap().set(70));
        let mut same = table(&file).unwrap();
        same.take_switches_of(&before);
        assert_eq!(state(&same), Some(State::Set(70)));
        let mut other = table(&file.replace("service = \"s\"", "service = \"other\"")).unwrap();
        other.take_switches_of(&before);
        assert_eq!(state(&other).map(State::as_str), Some("step"));
    }

    #[test]
    fn the_file_at_the_root_is_good() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway.toml")).unwrap();
        let table = table(&text).unwrap();
        for id in ["users", "sessions", "products", "orders", "payments"] {
            assert!(table.named(id).is_some(), "{id}");
        }
    }
}
