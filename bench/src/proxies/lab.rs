//! Starts the origins and the proxies: the gateway and its peers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use shared::auth::{Secret, SigningKeys, USER_TOKEN_AUDIENCE, UserClaims};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use uuid::Uuid;
use xtask::{Authority, Secrets};

use super::case::{CASES, PREFIX, Policies};
use super::client::{Address, HOST, Plain};

/// Where `scripts/bench` has put the programs that are built here.
pub struct Programs {
    pub gateway: PathBuf,
    /// The program; `None` if it was not built.
    pub pingora: Option<PathBuf>,
}

/// A proxy that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Gateway,
    Nginx,
    Haproxy,
    Pingora,
    Node,
}

pub const PEERS: [Peer; 5] = [Peer::Nginx, Peer::Haproxy, Peer::Pingora, Peer::Node, Peer::Gateway];

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Pingora => "Pingora",
            Self::Node => "Node",
        }
    }

    /// Whether it can do what the gateway does with everything on, but for tokens and traces.
    pub fn has_policies(self) -> bool {
        matches!(self, Self::Gateway | Self::Nginx | Self::Haproxy)
    }

    pub fn named(name: &str) -> Option<Self> {
        PEERS.into_iter().find(|peer| peer.name().eq_ignore_ascii_case(name))
    }
}

/// Where the gateway sends its spans.
#[derive(Debug, Clone, Copy)]
pub struct Collector {
    pub port: u16,
    /// The part of the traces that is sampled.
    pub ratio: f64,
}

/// A process that ends with this value.
pub struct Running {
    pub address: Address,
    child: Child,
    output: PathBuf,
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time in microseconds, of all threads.
    pub fn cpu(&self) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten().flatten();
        let nanoseconds = |task: fs::DirEntry| -> Option<f64> {
            fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
        };
        tasks.filter_map(nanoseconds).sum::<f64>() / 1e3
    }

    /// Ends it with SIGTERM, and returns what it wrote to standard error.
    pub fn finish(mut self) -> Result<String, String> {
        let id = self.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().map_err(|why| why.to_string())?;
        self.child.wait().map_err(|why| why.to_string())?;
        fs::read_to_string(&self.output).map_err(|why| why.to_string())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder with configuration, keys and files, and the origins.
pub struct Lab {
    folder: PathBuf,
    programs: Programs,
    secrets: Secrets,
    /// A user token.
    pub token: String,
    trust: Arc<ClientConfig>,
    origin_ports: [u16; 2],
    origins: Vec<Running>,
}

/// Where proxies run; the script has moved everything else to the other cores.
const CORE: &str = "0";
const START_TIMEOUT: Duration = Duration::from_secs(60);
const CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

impl Lab {
    pub fn open(programs: Programs) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("bench-{}", Uuid::now_v7()));
        Self::set_up(&folder, programs).map_err(|why| format!("{}: {why}", folder.display()))
    }

    fn set_up(folder: &Path, programs: Programs) -> std::io::Result<Self> {
        fs::create_dir_all(folder.join("www"))?;
        fs::create_dir_all(folder.join("temp"))?;
        fs::write(folder.join("www/64k"), vec![b'a'; 64 << 10])?;
        fs::write(folder.join("www/1m"), vec![b'a'; 1 << 20])?;
        let secrets = Secrets::make(&folder.join("secrets"))?;
        let pem = fs::read_to_string(secrets.signing_key())?;
        let keys = SigningKeys::from_pem(&Secret::new(&pem)).map_err(std::io::Error::other)?;
        fs::write(folder.join("jwks.json"), serde_json::to_vec(keys.jwks())?)?;
        let claims = UserClaims {
            iss: "user-service".to_owned(),
            aud: USER_TOKEN_AUDIENCE.to_owned(),
            sub: Uuid::now_v7(),
            roles: vec!["customer".to_owned()],
            sid: Uuid::now_v7(),
            auth_time: 0,
            iat: 0,
            exp: 4_000_000_000,
        };
        let token = keys.sign(&claims).map_err(std::io::Error::other)?;
        // A certificate for all proxies, of an authority that our clients trust.
        Authority::open(&folder.join("authority"))?.certify(
            &[HOST],
            SystemTime::now() + CERTIFICATE_LIFE,
            folder,
        )?;
        let [certificate, key] = [fs::read(folder.join("tls.crt"))?, fs::read(folder.join("tls.key"))?];
        fs::write(folder.join("tls.pem"), [certificate, key].concat())?;
        let trust = trust(&folder.join("ca.crt")).map_err(std::io::Error::other)?;
        let origin_ports = e2e::free_ports();
        Ok(Self {
            folder: folder.to_owned(),
            programs,
            secrets,
            token,
            trust,
            origin_ports,
            origins: Vec::new(),
        })
    }

    /// Starts the two origins, nginx.
    pub fn start_origins(&mut self) -> Result<(), String> {
        for port in self.origin_ports {
            let config = self.configuration("origin.conf", Policies::Bare, port, port)?;
            let mut nginx = Command::new("nginx");
            nginx.arg("-c").arg(config);
            let origin = self.spawn(nginx, "origin", port)?;
            self.origins.push(origin);
        }
        self.origins.iter_mut().try_for_each(|origin| answers(origin, None))
    }

    /// The ports of the origins, to start others there.
    pub fn origin_ports(&self) -> [u16; 2] {
        self.origin_ports
    }

    /// Gives the origins that start next ports of their own.
    pub fn move_origins(&mut self) {
        self.origin_ports = e2e::free_ports();
    }

    /// Starts a proxy on its core and waits until it answers right. `under` is a program that runs it, with its
    /// arguments. `None` if it is not here.
    pub fn start(
        &self,
        peer: Peer,
        policies: Policies,
        under: &[&str],
        collector: Option<Collector>,
    ) -> Result<Option<Running>, String> {
        let [port, tls, admin] = e2e::free_ports();
        let mut command = Command::new("taskset");
        command.args(["-c", CORE]).args(under);
        match peer {
            Peer::Gateway => self.gateway(&mut command, policies, [port, tls, admin], collector)?,
            Peer::Nginx => {
                command.arg("nginx").arg("-c").arg(self.configuration("nginx.conf", policies, port, tls)?);
            }
            Peer::Haproxy => {
                command.arg("haproxy").arg("-f").arg(self.configuration(
                    "haproxy.cfg",
                    policies,
                    port,
                    tls,
                )?);
            }
            Peer::Pingora => {
                let Some(pingora) = &self.programs.pingora else { return Ok(None) };
                command.arg(pingora).arg(port.to_string());
                command.args(self.origin_ports.map(|port| format!("127.0.0.1:{port}")));
            }
            Peer::Node => {
                command.arg("node").arg(peers().join("node/gateway.js")).arg(port.to_string());
                command.args(self.origin_ports.map(|port| format!("http://127.0.0.1:{port}")));
                // Where Debian puts what is required.
                command.env("NODE_PATH", "/usr/share/nodejs").env("NODE_ENV", "production");
            }
        }
        let mut running = self.spawn(command, peer.name(), port)?;
        if policies == Policies::Tls {
            running.address = Address { port: tls, tls: Some(self.trust.clone()) };
        }
        // The gateway fetches the key of the token first.
        let token = (policies == Policies::Full).then_some(self.token.as_str());
        answers(&mut running, token).map_err(|why| {
            format!(
                "{} does not start: {why}\n{}",
                peer.name(),
                fs::read_to_string(&running.output).unwrap_or_default()
            )
        })?;
        Ok(Some(running))
    }

    fn gateway(
        &self,
        command: &mut Command,
        policies: Policies,
        [port, tls, admin]: [u16; 3],
        collector: Option<Collector>,
    ) -> Result<(), String> {
        let origins = self.origin_ports.map(|port| format!("http://127.0.0.1:{port}")).join(",");
        command.arg(&self.programs.gateway);
        command.env("PORT", port.to_string()).env("ADMIN_PORT", admin.to_string());
        command.env("REGISTRY_URL", format!("static://bench={origins};user-service={origins}"));
        let config = self.configuration("gateway.toml", policies, port, tls)?;
        command.env("CONFIG_FILE", config);
        command.env("SERVICE_TOKEN_KEY_FILE", self.secrets.service_key("gateway"));
        command.env("SERVICE_TOKEN_PUBLIC_KEYS", self.secrets.public_keys());
        command.env("DRAIN_GRACE", "0s").env("MAX_CONNECTIONS", "8192");
        for other in ["HOST", "ADMIN_HOST", "INSTANCE", "TLS_FOLDER", "STATE_FILE", "LOG_FORMAT"] {
            command.env_remove(other);
        }
        match policies {
            Policies::Bare | Policies::Tls => command.env("RATE_LIMITS", "off").env("RUST_LOG", "off"),
            Policies::Full => command.env("RATE_LIMITS", "on").env("RUST_LOG", "info"),
        };
        if let Some(Collector { port, ratio }) = collector {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"));
            command.env("OTEL_TRACES_SAMPLER_ARG", ratio.to_string());
            // As with the peers, the access log goes to a file only.
            command.env("OTEL_LOGS_EXPORTER", "none");
        }
        Ok(())
    }

    /// Empties the access logs, so that they do not fill the disk.
    pub fn empty_logs(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                File::options().write(true).open(path)?.set_len(0)?;
            }
        }
        Ok(())
    }

    /// Fills in a file of `bench/peers`.
    fn configuration(&self, name: &str, policies: Policies, port: u16, tls: u16) -> Result<PathBuf, String> {
        let source = peers().join(name);
        let text = fs::read_to_string(&source).map_err(|why| format!("{}: {why}", source.display()))?;
        let start = "{\"id\":\"6f1c2d9e-3b0a-4c57-9a55-0d9f6f0b7e11\",\"name\":\"orders\",\"data\":\"";
        let json = format!("{start}{}\"}}", "x".repeat(CASES[0].gets - start.len() - 2));
        let kept: &[&str] = match policies {
            Policies::Bare => &["@bare "],
            Policies::Full => &["@full "],
            Policies::Tls => &["@bare ", "@tls "],
        };
        let mut text: String = text
            .lines()
            .filter_map(|line| match kept.iter().find_map(|mark| line.strip_prefix(mark)) {
                None if line.starts_with('@') => None,
                line_of_these => Some(line_of_these.unwrap_or(line).to_owned() + "\n"),
            })
            .collect();
        let [one, two] = self.origin_ports.map(|port| port.to_string());
        for (mark, value) in [
            ("@DIR@", &*self.folder.display().to_string()),
            ("@PORT@", &port.to_string()),
            ("@TLS@", &tls.to_string()),
            ("@PREFIX@", PREFIX),
            ("@ORIGIN1@", &one),
            ("@ORIGIN2@", &two),
            ("@JSON@", &json),
        ] {
            text = text.replace(mark, value);
        }
        let file = self.folder.join(format!("{port}-{name}"));
        fs::write(&file, text).map_err(|why| format!("{}: {why}", file.display()))?;
        Ok(file)
    }

    /// Starts a proxy. Its output, which may be an access log, is written to a file.
    fn spawn(&self, mut command: Command, name: &str, port: u16) -> Result<Running, String> {
        let output = self.folder.join(format!("{name}-{port}.log"));
        let file = File::options().create(true).append(true).open(&output).map_err(|why| why.to_string())?;
        let more = file.try_clone().map_err(|why| why.to_string())?;
        let child = command.stdin(Stdio::null()).stdout(more).stderr(file).spawn();
        let child = child.map_err(|why| format!("{name} cannot be started: {why}"))?;
        Ok(Running { address: Address { port, tls: None }, child, output })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.origins.clear();
        fs::remove_dir_all(&self.folder).unwrap_or_else(|why| eprintln!("{}: {why}", self.folder.display()));
    }
}

/// Clients that trust this authority.
fn trust(authority: &Path) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority).map_err(|why| why.to_string())?;
    roots.add(certificate).map_err(|why| why.to_string())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|why| why.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// Waits until the first case is answered right.
fn answers(running: &mut Running, token: Option<&str>) -> Result<(), String> {
    let (case, end) = (&CASES[0], Instant::now() + START_TIMEOUT);
    loop {
        let connected = Plain::connect(&running.address);
        let answered = connected.and_then(|mut plain| plain.exchange(&case.request(token)));
        if running.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return Err("it has ended".to_owned());
        }
        match answered {
            Ok(length) if length == case.gets => return Ok(()),
            _ if Instant::now() < end => std::thread::sleep(Duration::from_millis(50)),
            Ok(length) => return Err(format!("an answer of {length} bytes")),
            Err(why) => return Err(why),
        }
    }
}

/// Answers every request with 300 bytes. Port 0 picks a free one.
pub fn serve(port: u16) -> Result<u16, String> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).map_err(|why| why.to_string())?;
    let port = listener.local_addr().map_err(|why| why.to_string())?.port();
    let body = "x".repeat(CASES[0].gets);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut plain = Plain::over(stream);
                while plain.receive().is_some() && plain.send(answer.as_bytes()).is_ok() {}
            });
        }
    });
    Ok(port)
}

/// The first line that a command prints.
pub fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let line = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
    if line.is_empty() { format!("{program}: none") } else { line }
}

/// The machine: its processor, and how many cores it has.
pub fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = |name: &'static str| text.lines().filter(move |line| line.starts_with(name));
    let model =
        named("model name").find_map(|line| line.split(": ").nth(1)).unwrap_or("an unknown processor");
    format!("{model}, {} cores", named("processor").count())
}
