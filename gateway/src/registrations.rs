//! The pools of all services, and the in-memory registry that fills them unless `REGISTRY_URL` names another
//! registry.
//!
//! The in-memory registry writes its instances to a file, so that a restarted gateway serves after the first health
//! check. After a restart, every instance gets a new lease. Instances that no longer run do not renew their lease.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
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
use tokio::sync::watch;

/// The registered instances and the pools, shared by all threads.
pub struct Registrations {
    state: Mutex<State>,
    authoritative: bool,
    state_file: Option<StateFile>,
}

/// The file, and what to write into it next. The newest text replaces one that is not written yet.
struct StateFile {
    path: PathBuf,
    text: watch::Sender<String>,
    texts: watch::Receiver<String>,
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
        let known = state_file.as_deref().map(read).unwrap_or_default();
        let registrations = Self { authoritative: true, ..Self::following(settings) };
        for (service, instances) in known {
            for instance in instances {
                registrations.register(&service, instance, Instant::now());
            }
        }
        Self { state_file: state_file.map(StateFile::new), ..registrations }
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

    /// Hands the instances to [`Registrations::write`]. The disk is too slow for a caller that holds the lock.
    fn save(&self, state: &State) {
        let Some(file) = &self.state_file else { return };
        let services = state.leases.services();
        let known: BTreeMap<_, _> =
            services.iter().map(|service| (service, state.leases.instances(service))).collect();
        file.text.send_replace(json!(known).to_string());
    }

    /// Writes the state file after each change, until `stop`.
    pub async fn write(&self, stop: Stop) {
        let Some(StateFile { path, texts, .. }) = &self.state_file else { return stop.requested().await };
        let mut texts = texts.clone();
        loop {
            let is_changed = tokio::select! {
                changed = texts.changed() => changed.is_ok(),
                () = stop.requested() => texts.has_changed().unwrap_or_default(),
            };
            if !is_changed {
                return;
            }
            let text = texts.borrow_and_update().clone();
            write(path.clone(), text).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateFile {
    fn new(path: PathBuf) -> Self {
        let (text, texts) = watch::channel(String::new());
        Self { path, text, texts }
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

/// Whether a service or an instance may have this name.
pub fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn read(file: &Path) -> BTreeMap<String, Vec<Instance>> {
    let known = match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
        Err(error) => Err(error),
    };
    known.unwrap_or_else(|error| {
        log::warn!(error:%, file = file.display().to_string(); "the saved instances cannot be read");
        BTreeMap::new()
    })
}

async fn write(file: PathBuf, text: String) {
    let written = tokio::task::spawn_blocking({
        let file = file.clone();
        move || replace(&file, &text)
    });
    if let Err(error) = written.await.unwrap_or_else(|error| Err(error.into())) {
        log::warn!(error:%, file = file.display().to_string(); "the instances cannot be saved");
    }
}

/// Replaces the content of `file` as a whole: after a crash or on a full disk, it has the old content.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".tmp");
    let mut written = File::create(&new)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use shared::testing::eventually;

    use super::*;

    /// The state file of a test. It goes with the test.
    struct Saved(PathBuf);

    impl Saved {
        fn new() -> Self {
            let folder = std::env::temp_dir().join(format!("registrations-{}", uuid::Uuid::now_v7()));
            fs::create_dir(&folder).unwrap();
            Self(folder)
        }

        fn path(&self) -> PathBuf {
            self.0.join("instances.json")
        }

        /// A registry with what the file has.
        fn read(&self) -> Registrations {
            Registrations::new(settings(None), Some(self.path()))
        }
    }

    impl Drop for Saved {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap_or_default();
        }
    }

    /// Writes what `registrations` has to save.
    async fn write_all(registrations: &Registrations) {
        let (stopper, stop) = Stop::pair();
        stopper.stop();
        registrations.write(stop).await;
    }

    #[actix_web::test]
    async fn a_restarted_gateway_knows_the_last_instances() {
        let (saved, now) = (Saved::new(), Instant::now());
        let first = saved.read();
        first.register("a-service", Instance::new("one", "http://127.0.0.1:1"), now);
        write_all(&first).await;
        let again = saved.read();
        assert_eq!(again.instances("a-service", now)[0]["id"], "one");
        again.deregister("a-service", "one", now);
        write_all(&again).await;
        assert!(saved.read().instances("a-service", now).is_empty());
    }

    #[actix_web::test]
    async fn each_change_is_saved_while_the_gateway_runs() {
        let (saved, now) = (Saved::new(), Instant::now());
        let registrations = Arc::new(saved.read());
        let (stopper, stop) = Stop::pair();
        let writer = registrations.clone();
        let writing = actix_web::rt::spawn(async move { writer.write(stop).await });
        for id in ["one", "two"] {
            registrations.register("a-service", Instance::new(id, "http://127.0.0.1:1"), now);
            eventually("it is saved", Duration::from_secs(10), async || {
                fs::read_to_string(saved.path()).ok().filter(|text| text.contains(id))
            })
            .await;
        }
        stopper.stop();
        writing.await.unwrap();
    }

    #[actix_web::test]
    async fn a_crash_while_the_instances_are_saved_leaves_the_last_ones() {
        let (saved, now) = (Saved::new(), Instant::now());
        let registrations = saved.read();
        registrations.register("a-service", Instance::new("one", "http://127.0.0.1:1"), now);
        write_all(&registrations).await;
        // The directory stands for a disk that takes no more.
        fs::create_dir(saved.0.join("instances.json.tmp")).unwrap();
        registrations.register("a-service", Instance::new("two", "http://127.0.0.1:2"), now);
        write_all(&registrations).await;
        let known = saved.read().instances("a-service", now);
        assert!(known.len() == 1 && known[0]["id"] == "one", "{known:?}");
    }

    #[test]
    fn a_registration_does_not_wait_for_the_disk() {
        let saved = Saved::new();
        let registrations = saved.read();
        registrations.register("a-service", Instance::new("one", "http://127.0.0.1:1"), Instant::now());
        assert!(!saved.path().exists(), "it is written by the background task");
    }
}
