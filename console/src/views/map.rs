//! The map as the pages get it: made of the registry, the routes, the replicas' health and the traffic.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use shared::balancer::{Strategy, weight_of};

use crate::config::SERVICE;
use crate::domain::{Edge, EdgeKind, Health, Instance, Route, Service};

/// The input of the map. If the gateway does not respond, `services` and `routes` are those of its last response.
#[derive(Debug, Default)]
pub struct Seen {
    pub services: Vec<Service>,
    pub routes: Vec<Route>,
    pub is_gateway_here: bool,
    /// The health reports, by service and instance.
    pub health: BTreeMap<(String, String), Option<Health>>,
    /// Requests per second of each replica, by service and instance.
    pub rates: BTreeMap<(String, String), f64>,
    pub edges: Vec<Edge>,
    /// Whether programs outside of the registry answer, by name.
    pub externals: BTreeMap<String, bool>,
    /// Whether there is a registry besides the gateway.
    pub has_registry: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct Map {
    pub at: String,
    pub missing: Vec<String>,
    pub totals: Totals,
    pub attention: Vec<Attention>,
    pub nodes: Vec<Node>,
    pub edges: Vec<EdgeView>,
    pub routes: Vec<Route>,
    pub strategies: [Strategy; 6],
    /// Faults that run now; `None` without `LAB=on`.
    pub faults: Option<Vec<FaultView>>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultView {
    pub program: String,
    pub replica: String,
    pub fault: String,
    pub left_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Totals {
    rate: f64,
    errors: f64,
}

/// Something that a person should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attention {
    pub code: &'static str,
    pub count: usize,
    pub href: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub struct Node {
    id: String,
    kind: &'static str,
    name: String,
    column: usize,
    state: State,
    why: Option<String>,
    replicas: Vec<ReplicaView>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Healthy,
    Degraded,
    Failing,
    Away,
}

#[derive(Debug, Clone, Serialize)]
struct ReplicaView {
    id: String,
    url: String,
    state: State,
    health: String,
    reason: Option<String>,
    until: Option<String>,
    in_flight: u64,
    requests: u64,
    rate: Option<f64>,
    latency_ms: f64,
    weight: f64,
    slow_start: f64,
    version: Option<String>,
    started_at: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct EdgeView {
    from: String,
    to: String,
    kind: &'static str,
    rate: f64,
    errors: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    rates: Vec<f64>,
    error_rates: Vec<f64>,
}

const GATEWAY: &str = "gateway";
const CLIENTS: &str = "clients";
const DATABASE: &str = "database";
/// The name of the broker's check.
const BROKER: &str = "nats";
const FIRST_SERVICE: usize = 2;

impl Map {
    pub fn of(seen: &Seen, at: String, mut attention: Vec<Attention>) -> Self {
        let away: usize = seen
            .services
            .iter()
            .flat_map(|service| &service.instances)
            .filter(|one| state_of(one) > State::Degraded)
            .count();
        if away > 0 {
            attention.insert(0, Attention { code: "replicas", count: away, href: "/" });
        }
        let edges = edges(seen);
        let entrance = edges.iter().find(|edge| edge.from == CLIENTS);
        let totals = entrance.map_or(Totals { rate: 0.0, errors: 0.0 }, |edge| Totals {
            rate: edge.rate,
            errors: edge.errors,
        });
        Self {
            at,
            missing: if seen.is_gateway_here { Vec::new() } else { vec![GATEWAY.to_owned()] },
            totals,
            attention,
            nodes: nodes(seen, &edges),
            edges,
            routes: seen.routes.clone(),
            strategies: Strategy::ALL,
            faults: None,
        }
    }
}

fn nodes(seen: &Seen, edges: &[EdgeView]) -> Vec<Node> {
    let columns = columns(seen);
    let last = columns.values().max().copied().unwrap_or(FIRST_SERVICE);
    let plain = |id: String, kind, name: &str, column, state, why: Option<String>| Node {
        id,
        kind,
        name: name.to_owned(),
        column,
        state,
        why,
        replicas: Vec::new(),
    };
    let (gateway, why) = match seen.is_gateway_here {
        true => (State::Healthy, None),
        false => (State::Away, Some("Its admin port does not answer.".to_owned())),
    };
    let mut nodes = vec![
        plain(CLIENTS.to_owned(), "clients", CLIENTS, 0, State::Healthy, None),
        plain(GATEWAY.to_owned(), "gateway", GATEWAY, 1, gateway, why),
    ];
    for service in &seen.services {
        let (state, why) = state_of_service(service);
        nodes.push(Node {
            id: format!("service:{}", service.name),
            kind: "service",
            name: service.name.clone(),
            column: columns.get(&service.name).copied().unwrap_or(FIRST_SERVICE),
            state,
            why,
            replicas: service.instances.iter().map(|instance| replica(service, instance, seen)).collect(),
        });
    }
    for name in with_check(seen, DATABASE) {
        let (state, why) = state_of_check(seen, Some(&name), DATABASE);
        nodes.push(plain(format!("database:{name}"), "database", &name, last + 1, state, why));
    }
    if !with_check(seen, BROKER).is_empty() {
        let (state, why) = state_of_check(seen, None, BROKER);
        nodes.push(plain("broker".to_owned(), "broker", "NATS", last + 1, state, why));
    }
    if seen.has_registry {
        let state = if seen.services.is_empty() { State::Away } else { State::Healthy };
        nodes.push(plain("registry".to_owned(), "registry", "registry", last + 1, state, None));
    }
    let known: BTreeSet<_> = nodes.iter().map(|node| node.id.clone()).collect();
    let from_edges =
        edges.iter().flat_map(|edge| [&edge.from, &edge.to]).filter_map(|id| id.strip_prefix("external:"));
    let externals: BTreeSet<&str> = seen.externals.keys().map(String::as_str).chain(from_edges).collect();
    for name in externals.into_iter().filter(|name| !known.contains(*name)) {
        let (state, why) = match seen.externals.get(name) {
            Some(false) => (State::Away, Some("It does not answer.".to_owned())),
            _ => (State::Healthy, None),
        };
        nodes.push(plain(format!("external:{name}"), "external", name, last + 1, state, why));
    }
    nodes
}

/// A service is behind its callers: a routed one behind the gateway.
fn columns(seen: &Seen) -> BTreeMap<String, usize> {
    let routed: BTreeSet<_> = seen.routes.iter().map(|route| route.service.as_str()).collect();
    let mut columns: BTreeMap<String, usize> =
        seen.services.iter().map(|service| (service.name.clone(), FIRST_SERVICE)).collect();
    // As many rounds as there are services: a cycle ends too.
    for _ in 0..seen.services.len() {
        for edge in seen.edges.iter().filter(|edge| edge.kind == EdgeKind::Http) {
            let from = edge.from.as_ref().and_then(|from| columns.get(from)).copied();
            if let (Some(from), false) = (from, routed.contains(edge.to.as_str()))
                && let Some(column) = columns.get_mut(&edge.to)
                && *column <= from
            {
                *column = from + 1;
            }
        }
    }
    columns
}

/// The edges with traffic, and those that always exist: from the gateway to each routed service, and from each service
/// to its database.
fn edges(seen: &Seen) -> Vec<EdgeView> {
    let services: BTreeSet<_> = seen.services.iter().map(|service| service.name.as_str()).collect();
    let id = |name: &str| match name {
        GATEWAY => GATEWAY.to_owned(),
        name if services.contains(name) => format!("service:{name}"),
        name => format!("external:{name}"),
    };
    let mut views = Vec::new();
    for edge in seen.edges.iter().filter(|edge| edge.to != SERVICE && edge.from.as_deref() != Some(SERVICE)) {
        let (to, kind) = match edge.kind {
            EdgeKind::Http => (id(&edge.to), "http"),
            EdgeKind::Message => (id(&edge.to), "message"),
            EdgeKind::Database => (format!("database:{}", edge.to), "database"),
        };
        views.push(EdgeView {
            from: edge.from.as_deref().map_or_else(|| CLIENTS.to_owned(), id),
            to,
            kind,
            rate: edge.rate,
            errors: edge.errors,
            p50_ms: edge.p50_ms,
            p99_ms: edge.p99_ms,
            rates: edge.rates.clone(),
            error_rates: edge.error_rates.clone(),
        });
    }
    let mut silent = vec![(CLIENTS.to_owned(), GATEWAY.to_owned(), "http")];
    silent.extend(seen.routes.iter().map(|route| (GATEWAY.to_owned(), id(&route.service), "http")));
    silent.extend(
        with_check(seen, DATABASE)
            .into_iter()
            .map(|name| (id(&name), format!("database:{name}"), "database")),
    );
    for (from, to, kind) in silent {
        if !views.iter().any(|edge| edge.from == from && edge.to == to) {
            let (rates, error_rates) = (vec![0.0; crate::domain::STEPS], vec![0.0; crate::domain::STEPS]);
            views.push(EdgeView {
                from,
                to,
                kind,
                rate: 0.0,
                errors: 0.0,
                p50_ms: None,
                p99_ms: None,
                rates,
                error_rates,
            });
        }
    }
    views
}

fn replica(service: &Service, instance: &Instance, seen: &Seen) -> ReplicaView {
    let key = (service.name.clone(), instance.id.clone());
    ReplicaView {
        id: instance.id.clone(),
        url: instance.url.clone(),
        state: state_of(instance),
        health: instance.health.clone(),
        reason: instance.reason.clone(),
        until: instance.until.clone(),
        in_flight: instance.active_requests,
        requests: instance.requests,
        rate: seen.rates.get(&key).copied(),
        latency_ms: instance.latency_ms,
        weight: weight_of(&instance.metadata),
        slow_start: instance.slow_start,
        version: instance.metadata.get("version").cloned(),
        started_at: instance.metadata.get("started_at").cloned(),
    }
}

fn state_of(instance: &Instance) -> State {
    match instance.health.as_str() {
        "healthy" => State::Healthy,
        // It ends, or is in maintenance.
        "draining" => State::Degraded,
        _ => State::Failing,
    }
}

fn state_of_service(service: &Service) -> (State, Option<String>) {
    let (all, healthy) = (
        service.instances.len(),
        service.instances.iter().filter(|instance| state_of(instance) == State::Healthy).count(),
    );
    match (all, healthy) {
        (0, _) => (State::Away, Some("No replica is registered.".to_owned())),
        (all, 0) => (State::Failing, Some(format!("None of {all} replicas is healthy."))),
        (all, healthy) if healthy < all => {
            (State::Degraded, Some(format!("{healthy} of {all} replicas are healthy.")))
        }
        _ => (State::Healthy, None),
    }
}

/// The services that have a dependency of this name.
fn with_check(seen: &Seen, check: &str) -> BTreeSet<String> {
    let has =
        |health: &Option<Health>| health.as_ref().is_some_and(|health| health.checks.contains_key(check));
    seen.health.iter().filter(|(_, health)| has(health)).map(|((service, _), _)| service.clone()).collect()
}

/// The state of a dependency, from the health reports of the replicas of `service`, or of all.
fn state_of_check(seen: &Seen, service: Option<&str>, check: &str) -> (State, Option<String>) {
    let of_service =
        seen.health.iter().filter(|((name, _), _)| service.is_none_or(|service| service == name));
    let told = of_service.filter_map(|(_, health)| health.as_ref()?.checks.get(check));
    let (mut all, mut good) = (0, 0);
    told.for_each(|state| (all, good) = (all + 1, good + usize::from(state == "ok")));
    match (all, good) {
        (all, good) if all == good => (State::Healthy, None),
        (all, 0) => (State::Failing, Some(format!("None of {all} replicas can use it."))),
        (all, good) => (State::Degraded, Some(format!("{good} of {all} replicas can use it."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, health: &str) -> Instance {
        Instance {
            id: id.to_owned(),
            url: format!("http://{id}"),
            health: health.to_owned(),
            active_requests: 0,
            requests: 0,
            latency_ms: 0.0,
            metadata: BTreeMap::new(),
            reason: None,
            until: None,
            slow_start: 1.0,
        }
    }

    fn edge(from: Option<&str>, to: &str, kind: EdgeKind) -> Edge {
        let (rates, error_rates) = (Vec::new(), Vec::new());
        Edge {
            from: from.map(str::to_owned),
            to: to.to_owned(),
            kind,
            rate: 1.0,
            errors: 0.5,
            p50_ms: None,
            p99_ms: None,
            lag_ms: None,
            rates,
            error_rates,
        }
    }

    fn seen() -> Seen {
        let service = |name: &str, instances| Service { name: name.to_owned(), instances };
        let health = |checks: &[(&str, &str)]| {
            let checks = checks.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned()));
            Some(Health { checks: checks.collect() })
        };
        Seen {
            services: vec![
                service("a-service", vec![instance("a-1", "healthy"), instance("a-2", "ejected")]),
                service("b-service", vec![instance("b-1", "unhealthy")]),
                service("c-service", vec![]),
            ],
            routes: vec![Route {
                id: "as".to_owned(),
                prefix: "/api/as".to_owned(),
                service: "a-service".to_owned(),
                strategy: "random".to_owned(),
                versions: None,
            }],
            is_gateway_here: true,
            health: BTreeMap::from([
                (("a-service".to_owned(), "a-1".to_owned()), health(&[("database", "ok")])),
                (("a-service".to_owned(), "a-2".to_owned()), health(&[("database", "down")])),
                (("b-service".to_owned(), "b-1".to_owned()), None),
            ]),
            edges: vec![
                edge(None, "gateway", EdgeKind::Http),
                edge(Some("a-service"), "b-service", EdgeKind::Http),
                edge(Some("b-service"), "a-bank", EdgeKind::Http),
                edge(Some("b-service"), "a-service", EdgeKind::Message),
            ],
            externals: BTreeMap::from([("a-bank".to_owned(), false)]),
            ..Seen::default()
        }
    }

    #[test]
    fn a_service_is_behind_its_callers_and_what_is_wrong_is_said() {
        let map = Map::of(&seen(), String::new(), Vec::new());
        let nodes: Vec<_> =
            map.nodes.iter().map(|node| (node.id.as_str(), node.column, node.state)).collect();
        assert_eq!(
            nodes,
            [
                ("clients", 0, State::Healthy),
                ("gateway", 1, State::Healthy),
                ("service:a-service", 2, State::Degraded),
                ("service:b-service", 3, State::Failing),
                ("service:c-service", 2, State::Away),
                ("database:a-service", 4, State::Degraded),
                ("external:a-bank", 4, State::Away),
            ]
        );
        let why = map.nodes[2].why.as_deref();
        assert_eq!(why, Some("1 of 2 replicas are healthy."));
        assert_eq!(map.attention, [Attention { code: "replicas", count: 2, href: "/" }]);
        assert_eq!(map.totals, Totals { rate: 1.0, errors: 0.5 });
    }

    #[test]
    fn an_edge_without_traffic_is_there_too() {
        let map = Map::of(&seen(), String::new(), Vec::new());
        let edges: Vec<_> =
            map.edges.iter().map(|edge| format!("{} {} {}", edge.from, edge.kind, edge.to)).collect();
        for expected in [
            "clients http gateway",
            "gateway http service:a-service",
            "service:a-service http service:b-service",
            "service:a-service database database:a-service",
            "service:b-service http external:a-bank",
            "service:b-service message service:a-service",
        ] {
            assert!(edges.iter().any(|edge| edge == expected), "{expected}: {edges:?}");
        }
        let nodes: BTreeSet<_> = map.nodes.iter().map(|node| node.id.as_str()).collect();
        for edge in &map.edges {
            assert!(nodes.contains(edge.from.as_str()) && nodes.contains(edge.to.as_str()), "{edge:?}");
        }
    }
}
