//! The pools of all services, and the in-memory registry that fills them unless `REGISTRY_URL` names another
//! registry.
//!
//! The in-memory registry writes its instances to a file, so that a restarted gateway serves immediately. After a
//! restart, every instance gets a new lease. Instances that no longer run do not renew their lease.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::balancer::{HealthSource, Maintenance, Pool, Settings, Snapshot};
use shared::registry::{Instance, LEASE, Leases};
use shared::stop::Stop;
use shared::tls::Tls;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The registered instances and the pools, shared by all threads.
pub struct Registrations {
    state: Mutex<State>,
    authoritative: bool,
    state_file: Option<PathBuf>,
}

struct State {
    settings: Settings,
    leases: Leases,
    pools: BTreeMap<String, Arc<Pool>>,
}

/// Interval of checks for expired leases.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

impl Registrations {
    /// An authoritative registry, initialized from `state_file` if there is one.
    pub fn new(settings: Settings, state_file: Option<PathBuf>) -> Self {
        let registrations = Self { authoritative: true, state_file, ..Self::following(settings) };
        let known = registrations.state_file.as_deref().map(read).unwrap_or_default();
        for (service, instances) in known {
            for instance in instances {
                registrations.register(&service, instance, Instant::now());
            }
        }
        registrations
    }

    /// Makes only the pools, for another registry; see [`Registrations::track`].
    pub fn following(settings: Settings) -> Self {
        let state = State { settings, leases: Leases::default(), pools: BTreeMap::new() };
        Self { state: Mutex::new(state), authoritative: false, state_file: None }
    }

    /// Whether replicas register here.
    pub fn is_authoritative(&self) -> bool {
        self.authoritative
    }

    /// Adds a pool that follows another registry.
    pub fn track(&self, pool: Arc<Pool>) {
        self.state().pools.insert(pool.service().to_owned(), pool);
    }

    /// The pool of `service` in the in-memory registry.
    pub fn pool(&self, service: &str) -> Arc<Pool> {
        self.state().pool(service)
    }

    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.state().pools.values().cloned().collect()
    }

    /// Registers or renews; returns the duration of the lease.
    pub fn register(&self, service: &str, instance: Instance, now: Instant) -> Duration {
        let mut state = self.state();
        if state.leases.register(service, instance, now) {
            state.changed(service, now);
            self.save(&state);
        }
        LEASE
    }

    /// Removes an instance; returns whether it was registered.
    pub fn deregister(&self, service: &str, id: &str, now: Instant) -> bool {
        let mut state = self.state();
        let there = state.leases.deregister(service, id);
        if there {
            state.changed(service, now);
            self.save(&state);
        }
        there
    }

    /// Removes instances with expired leases, and ends each maintenance whose time is over, until `stop`.
    pub async fn expire(&self, stop: Stop) {
        while !stop.is_requested() {
            stop.sleep(EXPIRY_INTERVAL).await;
            let now = Instant::now();
            self.pools().iter().for_each(|pool| pool.end_expired_maintenance(now));
            let mut state = self.state();
            if state.leases.expire(now) {
                for service in state.leases.services() {
                    state.changed(&service, now);
                }
                self.save(&state);
            }
        }
    }

    /// Puts a replica into maintenance, or ends that; returns whether it is registered.
    pub fn set_maintenance(
        &self,
        service: &str,
        id: &str,
        maintenance: Option<Maintenance>,
        now: Instant,
    ) -> bool {
        let pool = self.state().pools.get(service).cloned();
        pool.is_some_and(|pool| pool.set_maintenance(id, maintenance, now))
    }

    /// All services with their instances, as JSON.
    pub fn services(&self, now: Instant) -> Vec<Value> {
        let services: Vec<String> = self.state().pools.keys().cloned().collect();
        let described =
            services.iter().map(|name| json!({ "name": name, "instances": self.instances(name, now) }));
        described.collect()
    }

    /// The instances of `service` as JSON, including draining ones.
    pub fn instances(&self, service: &str, now: Instant) -> Vec<Value> {
        let Some(pool) = self.state().pools.get(service).cloned() else { return Vec::new() };
        pool.snapshot(now).iter().map(|seen| described(seen, now)).collect()
    }

    fn save(&self, state: &State) {
        let Some(file) = &self.state_file else { return };
        let services = state.leases.services();
        let known: BTreeMap<_, _> =
            services.iter().map(|service| (service, state.leases.instances(service))).collect();
        if let Err(error) = std::fs::write(file, json!(known).to_string()) {
            log::warn!(error:%, file = file.display().to_string(); "the instances cannot be saved");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pool(&mut self, service: &str) -> Arc<Pool> {
        let Self { pools, settings, .. } = self;
        pools.entry(service.to_owned()).or_insert_with(|| Pool::new(service, settings.clone())).clone()
    }

    fn changed(&mut self, service: &str, now: Instant) {
        let instances = self.leases.instances(service);
        self.pool(service).update(&instances, now);
    }
}

/// The settings of a pool. Whatever the registry is, the gateway itself checks a new replica before its first request.
pub fn settings(tls: Option<Tls>) -> Settings {
    Settings { health_source: HealthSource::ActiveChecks, tls, ..Settings::default() }
}

fn described(seen: &Snapshot, now: Instant) -> Value {
    let left = seen.until.map(|until| until.saturating_duration_since(now));
    let until = left.and_then(|left| (OffsetDateTime::now_utc() + left).format(&Rfc3339).ok());
    json!({
        "id": seen.instance.id,
        "url": seen.instance.url,
        "health": seen.health.as_str(),
        "active_requests": seen.active_requests,
        "metadata": seen.instance.metadata,
        "requests": seen.requests,
        "latency_ms": seen.latency.as_secs_f64() * 1000.0,
        "weight": seen.weight,
        "reason": seen.reason,
        "until": until,
    })
}

fn read(file: &Path) -> BTreeMap<String, Vec<Instance>> {
    match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
            log::warn!(error:%, file = file.display().to_string(); "the saved instances cannot be read");
            BTreeMap::new()
        }),
        Err(_) => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_gateway_knows_the_last_instances() {
        let file = std::env::temp_dir().join(format!("registrations-{}.json", uuid::Uuid::now_v7()));
        let now = Instant::now();
        let instance = Instance::new("one", "http://127.0.0.1:1");
        let known = || Registrations::new(settings(None), Some(file.clone()));
        known().register("a-service", instance, now);
        let again = known();
        assert_eq!(again.instances("a-service", now)[0]["id"], "one");
        again.deregister("a-service", "one", now);
        assert!(known().instances("a-service", now).is_empty());
        std::fs::remove_file(file).unwrap();
    }
}
/// Whether a service or an instance may have this name.
pub fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

