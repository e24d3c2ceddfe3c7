//! All programs of the system as processes, and the means to kill one.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::json;
use shared::auth::{Reread, ServiceKeys};
use shared::client::TokenSource;
use shared::registry::MemoryRegistry;
use shared::testing::{Api, eventually};
use uuid::Uuid;
use xtask::stack::{are_all_healthy, healthy_replicas};
use xtask::{Kind, Layout, Program, Replica, Secrets, programs};

use crate::person::Person;

/// How long a start may take; generous, because machines that test are busy.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the programs listen: above what has a name, below what Linux takes for outgoing connections.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 20_000;

pub struct Stack {
    folder: PathBuf,
    /// The public port of the gateway.
    pub public: Api,
    /// A client of the gateway's admin port.
    pub admin_port: Api,
    replicas: Vec<Replica>,
    secrets: Secrets,
}

impl Stack {
    /// Starts everything and waits until it is healthy.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with more variables for every program.
    pub async fn start_with(variables: &[(&str, &str)]) -> Self {
        let stack = Self::starting(variables).await;
        stack.healthy().await;
        stack
    }

    /// Starts everything, and leaves the waiting to the caller.
    pub async fn starting(variables: &[(&str, &str)]) -> Self {
        Self::starting_changed(variables, |_| {}).await
    }

    /// The same; `change` may set more variables of each replica.
    pub async fn starting_changed(variables: &[(&str, &str)], change: impl FnMut(&mut Replica)) -> Self {
        let folder = std::env::temp_dir().join(format!("e2e-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).expect("the folder for tests can be made");
        let secrets = Secrets::make(&folder).expect("the folder for tests is writable");
        let count: u16 = programs().iter().map(|program| program.replicas).sum();
        let (ports, admin): (Vec<_>, _) = ((0..count).map(|_| free_port()).collect(), free_port());
        let config_file = workspace().join("gateway.toml").display().to_string();
        let defaults = [
            ("DRAIN_GRACE", "200ms"),
            ("RATE_LIMITS", "off"),
            ("SEED_PRODUCTS", "on"),
            ("HOSTNAME", "e2e"),
            ("CONFIG_FILE", &config_file),
            // The console picks a free port, because several stacks run at the same time.
            ("OTLP_PORT", "0"),
        ];
        let layout = Layout {
            binaries: &binaries(),
            folder: &folder,
            data: &folder,
            logs: &folder,
            ports: &ports,
            admin_port: admin,
            secrets: &secrets,
            variables: &[&defaults, variables].concat(),
        };
        let replicas = layout.replicas().expect("the secrets are there");
        let gateway = replicas.iter().find(|replica| replica.program.kind == Kind::Gateway);
        let public = Api::local(gateway.map_or(0, |gateway| gateway.port));
        let admin_port = Api::local(admin);
        let mut stack = Self { folder, public, admin_port, replicas, secrets };
        stack.replicas.iter_mut().for_each(change);
        stack.replicas.iter_mut().for_each(start);
        eventually("the gateway's admin port", START_TIMEOUT, || stack.admin_port.try_get("/health/live"))
            .await;
        stack
    }

    /// Waits until the gateway counts all replicas of every service as healthy, and the operators' tools answer.
    pub async fn healthy(&self) {
        let admin = &self.admin_port;
        eventually("every replica of every service is healthy", START_TIMEOUT, || async {
            let registry = admin.try_get("/registry/services").await?.body;
            let ready = self.public.try_get("/health/ready").await?.status == 200;
            (ready && are_all_healthy(&registry)).then_some(())
        })
        .await;
        for tool in programs().iter().filter(|program| program.kind == Kind::Tool) {
            let api = self.direct(tool.name);
            eventually(tool.name, START_TIMEOUT, || api.try_get("/health/live")).await;
        }
    }

    /// The replicas of `service`.
    pub fn replicas(&mut self, service: &str) -> Vec<&mut Replica> {
        self.replicas.iter_mut().filter(|replica| replica.program.name == service).collect()
    }

    /// A replica's own port, past the gateway.
    pub fn direct(&self, service: &str) -> Api {
        let replica = self.replicas.iter().find(|replica| replica.program.name == service);
        Api::local(replica.map_or(0, |replica| replica.port))
    }

    /// Kills a program as a crash would (`kill -9`).
    pub fn kill(&mut self, service: &str, replica: usize) {
        self.replicas(service)[replica].kill().expect("a child can be killed");
    }

    /// Ends a program as an operator does (SIGTERM), and starts it again.
    pub async fn renew(&mut self, service: &str, replica: usize) {
        self.signal(service, replica, "-TERM");
        let replica = &mut self.replicas(service)[replica];
        let ended = async || replica.try_wait().expect("a child can be waited for");
        eventually("the program drains", START_TIMEOUT, ended).await;
        start(replica);
    }

    /// Starts a program that was killed.
    pub fn restart(&mut self, service: &str, replica: usize) {
        start(self.replicas(service)[replica]);
    }

    /// Registers a server of the test's own as a replica of `service`, and waits until it is healthy.
    pub async fn register_origin(&self, service: &str, url: &str) {
        let console = self.admin_port.with_token(self.service_token(service, "gateway", None));
        let path = format!("/registry/services/{service}");
        console
            .put(&format!("{path}/instances/origin"), json!({ "url": url, "metadata": {} }))
            .await
            .expect(200);
        eventually("the origin is healthy", START_TIMEOUT, || async {
            let seen = console.try_get(&path).await?.body;
            (healthy_replicas(&seen) == 1).then_some(())
        })
        .await;
    }

    /// A token of `caller`, on behalf of `person` if given. A service that the stack does not have gets its keys
    /// now.
    pub fn service_token(&self, caller: &str, callee: &str, person: Option<Uuid>) -> String {
        self.keys_of(caller).mint(caller, callee, person)
    }

    /// What `service` signs with.
    pub fn keys_of(&self, service: &str) -> ServiceKeys {
        self.secrets.make_service_key(service).expect("the folder for tests is writable");
        let own = Reread::open(&self.secrets.service_key(service)).expect("a new key is good");
        let public = Reread::open(&self.secrets.public_keys()).expect("new keys are good");
        ServiceKeys::new(Arc::new(own), Arc::new(public))
    }

    /// The files with the keys.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Replaces all keys that sign tokens; see [`Secrets::rotate`].
    pub async fn rotate(&self, spread: Duration, life: Duration) {
        let secrets = self.secrets.clone();
        let rotating = tokio::task::spawn_blocking(move || secrets.rotate(spread, life));
        rotating.await.expect("it does not panic").expect("the folder for tests is writable");
    }

    /// The registry, as `service` uses it.
    pub fn registry(&self, service: &'static str) -> MemoryRegistry {
        let address = self.admin_port.base.trim_start_matches("http://");
        MemoryRegistry::new(address, TokenSource::new(service, self.keys_of(service)))
    }

    /// The requests that a replica of `service` has now.
    pub async fn active_requests(&self, service: &str, port: u16) -> u64 {
        let seen = self.admin_port.get(&format!("/registry/services/{service}")).await.body;
        let name = format!("-{port}");
        let instances = seen["instances"].as_array().into_iter().flatten();
        let mut found = instances.filter(|one| one["id"].as_str().is_some_and(|id| id.ends_with(&name)));
        found.next().and_then(|one| one["active_requests"].as_u64()).unwrap_or_default()
    }

    /// The database of `service`, to be tampered with.
    pub fn database_url(&self, service: &str) -> String {
        let database = Program::named(service).database.unwrap_or_default();
        format!("sqlite://{}", self.folder.join(format!("{database}.db")).display())
    }

    /// Stops a program without ending it (`kill -STOP`).
    pub fn pause(&mut self, service: &str, replica: usize) {
        self.signal(service, replica, "-STOP");
    }

    /// Resumes a paused program.
    pub fn resume(&mut self, service: &str, replica: usize) {
        self.signal(service, replica, "-CONT");
    }

    fn signal(&mut self, service: &str, replica: usize, signal: &str) {
        let Some(process) = self.replicas(service)[replica].process() else { return };
        assert!(process.signal(signal), "{signal} cannot be sent");
    }

    /// Somebody new, registered and logged in.
    pub async fn register(&self) -> Person {
        Person::register(&self.public).await
    }

    /// The first admin, logged in.
    pub async fn admin(&self) -> Person {
        let admin = self.secrets.admin().expect("the secrets are there");
        let [(_, email), (_, password)] = &admin[..] else { panic!("{admin:?}") };
        Person::log_in(&self.public, email, password).await
    }

    /// What the replica `name` has logged so far.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(format!("{name}.log"))).expect("a replica has a log")
    }

    /// The programs' memory in bytes, all together.
    pub fn resident(&self) -> u64 {
        self.replicas.iter().filter_map(Replica::resident).sum()
    }

    /// One program's memory in bytes.
    pub fn resident_of(&self, name: &str) -> u64 {
        let named = self.replicas.iter().filter(|replica| replica.program.name == name);
        named.filter_map(Replica::resident).sum()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for replica in &mut self.replicas {
            replica.kill().unwrap_or_else(|why| eprintln!("{}: {why}", replica.name));
        }
        if std::thread::panicking() {
            eprintln!("the programs' logs: {}", self.folder.display());
        } else {
            std::fs::remove_dir_all(&self.folder).unwrap_or_else(|why| eprintln!("{why}"));
        }
    }
}

fn start(replica: &mut Replica) {
    replica.start().unwrap_or_else(|why| panic!("{why}; build it: cargo build --workspace"));
}

/// Ports that were free a moment ago, below those that the system gives to outgoing connections: one of
/// these could be taken again before the program that it is for starts.
///
/// # Panics
/// When there are none.
pub fn free_ports<const N: usize>() -> [u16; N] {
    [(); N].map(|()| free_port())
}

fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    let mut ports = (0..PORTS).map(|_| FIRST_PORT + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS);
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("loopback has free ports")
}

/// Where cargo puts the programs: beside the folder of this test.
fn binaries() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a file");
    test.ancestors().nth(2).expect("tests are built two folders down").to_owned()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
