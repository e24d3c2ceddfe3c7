//! All programs of the system as processes, and the means to kill one.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use shared::auth::ServiceKey;
use shared::client::TokenSource;
use shared::config::Variable as _;
use shared::registry::MemoryRegistry;
use shared::testing::{Api, eventually};

use crate::person::Person;
use crate::process;
use crate::secrets::Secrets;

/// The address of the first admin.
pub(crate) const ADMIN_EMAIL: &str = "admin@example.com";
/// The password of the first admin.
pub(crate) const ADMIN_PASSWORD: &str = "correct horse battery";

/// How long a start may take; generous, because machines that test are busy.
const START: Duration = Duration::from_secs(30);

/// Where the programs listen: above what has a name, below what Linux takes for outgoing connections.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 20_000;

/// One program, running or not.
pub struct Program {
    name: String,
    port: u16,
    command: Command,
    child: Option<Child>,
}

/// A gateway, a card network and two replicas of each service.
pub struct Stack {
    folder: PathBuf,
    /// The public port of the gateway.
    pub public: Api,
    /// Its admin port.
    pub admin_port: Api,
    programs: Vec<Program>,
    service_key: ServiceKey,
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
        let folder = std::env::temp_dir().join(format!("e2e-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).expect("the folder for tests can be made");
        let secrets = Secrets::make(&folder);
        let [public, admin, card_network, replicas @ ..] = free_ports::<9>();
        let environment = [
            ("REGISTRY_URL", format!("memory://127.0.0.1:{admin}")),
            ("SERVICE_TOKEN_KEY_FILE", secrets.service_key.display().to_string()),
            ("SIGNING_KEY_FILE", secrets.signing_key.display().to_string()),
            ("CARD_NETWORK_URL", format!("http://127.0.0.1:{card_network}")),
            ("ADMIN_EMAIL", ADMIN_EMAIL.to_owned()),
            ("ADMIN_PASSWORD", ADMIN_PASSWORD.to_owned()),
            ("SEED_PRODUCTS", "on".to_owned()),
            ("DRAIN_GRACE", "200ms".to_owned()),
            ("RATE_LIMITS", "off".to_owned()),
            ("HOSTNAME", "e2e".to_owned()),
            ("ADMIN_PORT", admin.to_string()),
            ("CONFIG_FILE", workspace().join("gateway.toml").display().to_string()),
        ];
        let program = |binary: &str, port: u16, database: Option<&str>| {
            let mut command = Command::new(binaries().join(binary));
            command.current_dir(&folder).envs(environment.iter().cloned()).env("PORT", port.to_string());
            command.envs(variables.iter().copied()).stdin(Stdio::null());
            if let Some(database) = database {
                command.env("DATABASE_URL", format!("sqlite://{}", folder.join(database).display()));
            }
            Program { name: format!("{binary}-{port}"), port, command, child: None }
        };
        let mut programs = vec![
            program("card-network", card_network, Some("card-network.db")),
            program("gateway", public, None),
        ];
        for (index, service) in ["user-service", "order-service", "payment-service"].iter().enumerate() {
            let database = format!("{service}.db");
            programs.push(program(service, replicas[2 * index], Some(&database)));
            programs.push(program(service, replicas[2 * index + 1], Some(&database)));
        }
        let (public, admin_port) = (Api::local(public), Api::local(admin));
        let service_key =
            ServiceKey::parse(&secrets.service_key.display().to_string()).expect("a new key is good");
        let mut stack = Self { folder, public, admin_port, programs, service_key };
        for program in &mut stack.programs {
            program.start(&stack.folder);
        }
        eventually("the gateway's admin port", START, || stack.admin_port.try_get("/health/live")).await;
        stack
    }

    /// Waits until the gateway counts two healthy replicas of every service.
    pub async fn healthy(&self) {
        let admin = &self.admin_port;
        eventually("two healthy replicas of every service", START, || async {
            let services = admin.try_get("/registry/services").await?.body;
            let services = services["services"].as_array()?.iter();
            let services = services.filter(|service| service["name"] != "origin");
            let healthy = services.map(healthy_instances).collect::<Vec<_>>();
            let ready = self.public.try_get("/health/ready").await?.status == 200;
            (ready && healthy.len() == 3 && healthy.iter().all(|count| *count == 2)).then_some(())
        })
        .await;
    }

    /// The replicas of `service`.
    pub fn replicas(&mut self, service: &str) -> Vec<&mut Program> {
        self.programs.iter_mut().filter(|program| program.name.starts_with(service)).collect()
    }

    /// A replica's own port, past the gateway.
    pub fn direct(&self, service: &str) -> Api {
        let program = self.programs.iter().find(|program| program.name.starts_with(service));
        Api::local(program.map_or(0, |program| program.port))
    }

    /// Kills a program as a crash would (`kill -9`).
    pub fn kill(&mut self, service: &str, replica: usize) {
        self.replicas(service)[replica].kill();
    }

    /// Starts a program that was killed.
    pub fn restart(&mut self, service: &str, replica: usize) {
        let folder = self.folder.clone();
        self.replicas(service)[replica].start(&folder);
    }

    /// Registers a server of the test's own as a replica of `service`, and waits until it is healthy.
    pub async fn register_origin(&self, service: &str, url: &str) {
        let console = self.admin_port.with_token(self.service_token());
        let path = format!("/registry/services/{service}");
        console
            .put(&format!("{path}/instances/origin"), json!({ "url": url, "metadata": {} }))
            .await
            .expect(200);
        eventually("the origin is healthy", START, || async {
            let seen = console.try_get(&path).await?.body;
            (healthy_instances(&seen) == 1).then_some(())
        })
        .await;
    }

    /// A token with which a service registers.
    pub fn service_token(&self) -> String {
        self.service_key.mint("e2e", "gateway", None)
    }

    /// The registry, as services use it.
    pub fn registry(&self) -> MemoryRegistry {
        let address = self.admin_port.base.trim_start_matches("http://");
        MemoryRegistry::new(address, TokenSource::new("e2e", self.service_key.clone()))
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
        format!("sqlite://{}", self.folder.join(format!("{service}.db")).display())
    }

    /// Stops a program without ending it (`kill -STOP`).
    pub fn pause(&mut self, service: &str, replica: usize) {
        self.replicas(service)[replica].signal("-STOP");
    }

    /// Lets a program go on that was paused.
    pub fn resume(&mut self, service: &str, replica: usize) {
        self.replicas(service)[replica].signal("-CONT");
    }

    /// Somebody new, registered and logged in.
    pub async fn register(&self) -> Person {
        Person::register(&self.public).await
    }

    /// The first admin, logged in.
    pub async fn admin(&self) -> Person {
        Person::log_in(&self.public, ADMIN_EMAIL, ADMIN_PASSWORD).await
    }

    /// The programs' memory in bytes, all together.
    pub fn resident(&self) -> u64 {
        self.programs.iter().filter_map(Program::resident).sum()
    }

    /// One program's memory in bytes.
    pub fn resident_of(&self, name: &str) -> u64 {
        let named = self.programs.iter().filter(|program| program.name.starts_with(name));
        named.filter_map(Program::resident).sum()
    }
}

/// How many replicas of a service are healthy, by what the gateway's `/registry` says of it.
pub fn healthy_instances(service: &Value) -> usize {
    let instances = service["instances"].as_array();
    instances.map_or(0, |all| all.iter().filter(|instance| instance["health"] == "healthy").count())
}

impl Program {
    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn start(&mut self, folder: &Path) {
        let log = File::options().create(true).append(true).open(folder.join(format!("{}.log", self.name)));
        let log = log.expect("the folder is writable");
        self.command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let started = self.command.spawn();
        let program = self.command.get_program().display();
        self.child =
            Some(started.unwrap_or_else(|why| panic!("{program}: {why}; build it: cargo build --workspace")));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).expect("a child can be killed");
        }
    }

    fn signal(&self, signal: &str) {
        let Some(child) = &self.child else { return };
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{signal} cannot be sent");
    }

    fn resident(&self) -> Option<u64> {
        process::resident(self.child.as_ref()?.id())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.programs.iter_mut().for_each(Program::kill);
        if std::thread::panicking() {
            eprintln!("the programs' logs: {}", self.folder.display());
        } else {
            std::fs::remove_dir_all(&self.folder).unwrap_or_else(|why| eprintln!("{why}"));
        }
    }
}

/// Ports that were free a moment ago, below those that the system gives to outgoing connections: one of
/// these could be taken again before the program that it is for starts.
///
/// # Panics
/// When there are none.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    [(); N].map(|()| {
        let mut ports = (0..PORTS).map(|_| FIRST_PORT + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS);
        let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        free.expect("loopback has free ports")
    })
}

/// Where cargo puts the programs: beside the folder of this test.
fn binaries() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a file");
    test.ancestors().nth(2).expect("tests are built two folders down").to_owned()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
