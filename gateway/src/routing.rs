//! Routing: `gateway.toml`, and the table that maps a path to a service by its longest prefix of whole
//! segments.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shared::balancer::{Picker, Pool, Strategy};
use shared::resilience::{Budget, Limiter};
use shared::service::RouteLabel;

/// `gateway.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Requests per second of one user, or of one address without a token.
    #[serde(default = "default_rate")]
    pub rate_per_second: u32,
    /// Burst size of the same token bucket.
    #[serde(default = "default_burst")]
    pub rate_burst: u32,
    /// Requests with a token per second of one address, before their tokens are verified.
    #[serde(default = "default_token_rate")]
    pub token_rate_per_second: u32,
    /// Connections of one address (of one /64 network, with IPv6) that is not a trusted proxy.
    #[serde(default = "default_connections")]
    pub connections_per_client: usize,
    /// Open event streams of one user.
    #[serde(default = "default_long_per_person")]
    pub streams_per_person: usize,
    /// Open event streams of one address (of one /64 network, with IPv6).
    #[serde(default = "default_long_per_client")]
    pub streams_per_client: usize,
    /// Requests of one user that wait with `Prefer: wait`. Beyond it, the preference is not passed on, so that the
    /// service answers at once.
    #[serde(default = "default_long_per_person")]
    pub waits_per_person: usize,
    /// The same for one address (one /64 network, with IPv6).
    #[serde(default = "default_long_per_client")]
    pub waits_per_client: usize,
    /// Requests of one user, or of one address, whose body is still to come.
    #[serde(default = "default_long_per_client")]
    pub uploads_per_client: usize,
    /// Memory in MiB for bodies that are kept to be sent again. Beyond it, bodies stream, and are not retried.
    #[serde(default = "default_kept_memory")]
    pub kept_bodies_mib: usize,
    /// Headers that are removed from requests, so that no service believes them.
    #[serde(default = "default_strip_headers")]
    pub strip_headers: Vec<String>,
    /// Networks of the proxies in front of the gateway whose `X-Forwarded-For` is trusted.
    #[serde(default)]
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Networks in which instances may be; other registrations are refused.
    #[serde(default = "default_networks")]
    pub instance_networks: Vec<ipnet::IpNet>,
    /// In any order: the longest matching prefix wins.
    pub routes: Vec<RouteEntry>,
}

/// One route in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteEntry {
    pub id: String,
    /// Path prefix; matches whole segments.
    pub prefix: String,
    pub service: String,
    /// Initial strategy; an admin can switch it.
    #[serde(default)]
    pub strategy: Strategy,
    /// Header with the key for consistent hashing; the client's address if absent.
    #[serde(default)]
    pub hash_header: Option<String>,
    /// Seconds to the head of the response.
    #[serde(default = "default_head_timeout")]
    pub head_timeout_s: u64,
    /// Whether `Prefer: wait=N` makes the gateway wait N + 5 s for the head of the response.
    #[serde(default)]
    pub prefer_wait: bool,
    /// For expensive requests: POSTs per second from one address to exactly this path, regardless of the user.
    #[serde(default)]
    pub post_rate_per_second: Option<u32>,
    /// Whether the service supports `Idempotency-Key`, so that such a POST may be retried.
    #[serde(default = "default_true")]
    pub honours_keys: bool,
    /// Whether the admin port shows it and lets its strategy be switched.
    #[serde(default = "default_true")]
    pub listed: bool,
}

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

fn default_true() -> bool {
    true
}

/// A route in the table, with the state of its service.
#[derive(Debug)]
pub struct Route {
    pub entry: RouteEntry,
    /// The prefix, under which its requests are counted.
    pub label: RouteLabel,
    pub pool: Arc<Pool>,
    pub picker: Picker,
    /// Shared by all routes of the service.
    pub load: Arc<Load>,
}

/// Concurrency limit and retry budget of one service.
#[derive(Debug)]
pub struct Load {
    pub limiter: Limiter,
    pub budget: Budget,
}

impl Load {
    /// Limits: 1,024 concurrent requests, and 128 that wait for at most 100 ms.
    pub fn new(now: Instant) -> Self {
        Self { limiter: Limiter::new(1024, 128, Duration::from_millis(100)), budget: Budget::new(now) }
    }
}

#[derive(Debug)]
pub struct Table {
    pub file: File,
    /// Short hash of the file's text.
    pub hash: String,
    /// Sorted by length of prefix, longest first.
    pub routes: Vec<Route>,
}

impl File {
    /// Parses `gateway.toml`. An error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let (mut ids, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
        for route in &file.routes {
            let wrong =
                |why: &str| Err(format!("line {}: route {}: {why}", line_of(text, &route.id), route.id));
            if !route.prefix.starts_with('/') || route.prefix.ends_with('/') {
                return wrong("the prefix must begin with / and not end with it");
            }
            if !ids.insert(&route.id) || !prefixes.insert(&route.prefix) {
                return wrong("there are two of that name or prefix");
            }
            if !(1..=3600).contains(&route.head_timeout_s) {
                return wrong("head_timeout_s must be 1 to 3600");
            }
        }
        if file.routes.is_empty() || file.rate_per_second == 0 || file.rate_burst == 0 {
            return Err("there must be a route, and rates above 0".to_owned());
        }
        Ok(file)
    }
}

/// The line of the last route with this id.
fn line_of(text: &str, id: &str) -> usize {
    let named = |line: &str| line.trim_start().starts_with("id") && line.contains(&format!("\"{id}\""));
    text.lines().enumerate().filter(|(_, line)| named(line)).last().map_or(0, |(index, _)| index + 1)
}

impl Table {
    /// Parses `text`, and makes a table with the `pool` and `load` of each service.
    pub fn read(
        text: &str,
        mut pool: impl FnMut(&str) -> Arc<Pool>,
        mut load: impl FnMut(&str) -> Arc<Load>,
    ) -> Result<Self, String> {
        let file = File::parse(text)?;
        let mut routes: Vec<Route> = file
            .routes
            .iter()
            .map(|entry| Route {
                pool: pool(&entry.service),
                picker: Picker::new(entry.strategy),
                load: load(&entry.service),
                label: RouteLabel(entry.prefix.as_str().into()),
                entry: entry.clone(),
            })
            .collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.entry.prefix.len()));
        let digest = Sha256::digest(text);
        let hash = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { file, hash, routes })
    }

    /// Whether `peer` is a proxy in front of the gateway, whose `X-Forwarded-For` is believed.
    pub fn is_trusted(&self, peer: &IpAddr) -> bool {
        self.file.trusted_proxies.iter().any(|network| network.contains(peer))
    }

    /// The route with the longest prefix of `path`.
    pub fn route(&self, path: &str) -> Option<&Route> {
        self.routes.iter().find(|route| {
            path.strip_prefix(route.entry.prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// Takes over the strategies that an admin has switched, unless the file's strategy has changed.
    pub fn take_switches_of(&self, before: &Self) {
        for route in &self.routes {
            if let Some(same) = before.named(&route.entry.id)
                && same.entry.strategy == route.entry.strategy
            {
                route.picker.switch(same.picker.strategy());
            }
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
        let load = Arc::new(Load::new(Instant::now()));
        Table::read(text, |service| Pool::new(service, Settings::default()), |_| load.clone())
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
    fn a_bad_file_is_refused_with_the_line() {
        let bad = format!("{}strategy = \"by-magic\"\n", text(&["/a"]));
        let why = table(&bad).unwrap_err();
        assert!(why.contains("line 5") && why.contains("by-magic"), "{why}");
        assert!(table(&text(&["/a", "/a"])).unwrap_err().starts_with("line 6: route /a"));
        let endless = format!("{}head_timeout_s = 18446744073709551615\n", text(&["/a"]));
        for bad in ["", "routes = []", &text(&["a"]), &text(&["/a/"]), &endless] {
            assert!(table(bad).is_err(), "{bad}");
        }
        assert!(table(&format!("colour = \"red\"\n{}", text(&["/a"]))).unwrap_err().contains("colour"));
    }

    #[test]
    fn a_reload_keeps_a_switched_strategy_unless_the_file_names_another() {
        let (file, other) = (text(&["/a"]), format!("{}strategy = \"random\"\n", text(&["/a"])));
        let strategy = |table: &Table| table.routes[0].picker.strategy();
        let before = table(&file).unwrap();
        before.routes[0].picker.switch(Strategy::P2cEwma);
        let same = table(&file).unwrap();
        same.take_switches_of(&before);
        assert_eq!(strategy(&same), Strategy::P2cEwma);
        let changed = table(&other).unwrap();
        changed.take_switches_of(&before);
        assert_eq!(strategy(&changed), Strategy::Random);
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
