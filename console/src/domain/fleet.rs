//! Services, replicas and routes, as the gateway's admin port tells them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Service {
    pub name: String,
    pub instances: Vec<Instance>,
}

/// A replica, as the gateway sees it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Instance {
    pub id: String,
    pub url: String,
    pub health: String,
    pub active_requests: u64,
    #[serde(default)]
    pub requests: u64,
    #[serde(default)]
    pub latency_ms: f64,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Why the replica is not healthy.
    pub reason: Option<String>,
    /// When an ejection ends, as RFC 3339.
    pub until: Option<String>,
    /// The share of requests that slow start lets it have: from 0 to 1.
    #[serde(default = "whole", rename = "weight")]
    pub slow_start: f64,
}

fn whole() -> f64 {
    1.0
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub id: String,
    pub prefix: String,
    pub service: String,
    pub strategy: String,
    /// `None` if the route does not distinguish versions.
    pub versions: Option<Versions>,
}

/// How a route divides its requests between the versions of its service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Versions {
    /// The share of each version, from 0 to 1.
    pub shares: BTreeMap<String, f64>,
    pub canary: Option<Canary>,
}

/// A new version of a service that gets its share of the requests before the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    pub version: String,
    /// `step`, `set` (by an admin) or `rolled_back`.
    pub state: String,
}

/// The state of a replica's dependencies: `ok`, `degraded` or `down`, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Health {
    #[serde(default)]
    pub checks: BTreeMap<String, String>,
}
