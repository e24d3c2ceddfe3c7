//! The stack that `scripts/up` starts and `scripts/down` ends.
//!
//! A supervisor starts every replica, and starts it again when it ends. `data/run/NAME.pid` holds the id of
//! a replica's process, `supervisor.pid` that of the supervisor.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http;
use crate::process::{Process, resident};
use crate::programs::{Program, gateway, programs, services};
use crate::replica::{Layout, Replica};
use crate::secrets::Secrets;

const DATA: &str = "data";
const RUN: &str = "data/run";
const LOGS: &str = "data/logs";
pub const SECRETS: &str = ".secrets";
const SUPERVISOR: &str = "supervisor";
/// The gateway's port for the registry and the console.
pub const ADMIN_PORT: u16 = 9090;
/// Where the console receives traces and logs.
const COLLECTOR: &str = "http://127.0.0.1:4318";

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for a stop: longer than any drain.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between a program's end and its next start. It doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A program that has run for this long is no longer considered to crash at its start.
const STEADY: Duration = Duration::from_secs(60);

/// The process of a replica, if it runs.
pub fn process(replica: &str) -> Option<Process> {
    Process::recorded(Path::new(RUN), replica)
}

/// Whether the programs are supervised here.
pub fn is_up() -> bool {
    process(SUPERVISOR).is_some()
}

/// Starts everything in the background, and waits until it is healthy.
pub fn up(options: &[&str]) -> io::Result<()> {
    for folder in [RUN, LOGS] {
        fs::create_dir_all(folder)?;
    }
    let secrets = Secrets::make(Path::new(SECRETS))?;
    // The login of the stack that was started last: this one, or that in docker compose.
    fs::copy(secrets.admin_env(), Path::new(SECRETS).join("admin.env"))?;

    let began = Instant::now();
    let log = File::options().create(true).append(true).open(format!("{LOGS}/{SUPERVISOR}.log"))?;
    // A session of its own: neither Ctrl-C nor the end of the terminal reaches the programs.
    let mut supervisor = Command::new("setsid");
    supervisor.arg(std::env::current_exe()?).arg("supervise").args(options);
    supervisor.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let first_request = await_replicas(began)?;
    fs::write(format!("{RUN}/first-request-ms"), first_request.as_millis().to_string())
}

/// Waits until every replica is healthy and the gateway serves. Returns the time until the first request was served.
fn await_replicas(began: Instant) -> io::Result<Duration> {
    let all: usize = services().map(|service| usize::from(service.replicas)).sum();
    let (mut first_request, mut healthy) = (None, 0);
    let is_terminal = io::stdout().is_terminal();
    while began.elapsed() < START_TIMEOUT {
        if first_request.is_none() && http::get(gateway().port, "/api/products?limit=1").is_some() {
            first_request = Some(began.elapsed());
        }
        healthy = healthy_in_all().unwrap_or_default();
        if is_terminal {
            print!("\r{healthy} of {all} replicas are healthy  ");
            io::stdout().flush()?;
        }
        if let (Some(first), true) = (first_request, healthy >= all)
            && http::get(gateway().port, "/health/ready").is_some()
        {
            print!("{}", if is_terminal { "\n" } else { "" });
            return Ok(first);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(io::Error::other(format!(
        "Only {healthy} of {all} replicas became healthy within 30 s: see {LOGS}/. scripts/down ends what runs."
    )))
}

fn healthy_in_all() -> Option<usize> {
    let registry: Value = serde_json::from_str(&http::get(ADMIN_PORT, "/registry/services")?).ok()?;
    Some(registry["services"].as_array()?.iter().map(healthy_replicas).sum())
}

/// How many replicas of a service are healthy, by what the gateway's `/registry/services` says of it.
pub fn healthy_replicas(service: &Value) -> usize {
    let instances = service["instances"].as_array().into_iter().flatten();
    instances.filter(|instance| instance["health"] == "healthy").count()
}

/// Whether all replicas of every service are healthy, by the gateway's `/registry/services`.
pub fn are_all_healthy(registry: &Value) -> bool {
    let is_whole = |service: &Program| {
        let mut known = registry["services"].as_array().into_iter().flatten();
        known.any(|one| one["name"] == service.name && healthy_replicas(one) >= service.replicas.into())
    };
    services().all(is_whole)
}

/// The flag for TLS between the services.
const MUTUAL_TLS: &str = "--mutual-tls";
/// Towards the gateway's clients.
const CLIENT_TLS: &str = "--tls";
pub const CLIENT_TLS_PORT: u16 = 8443;

pub fn are_options(options: &[&str]) -> bool {
    options.iter().all(|option| [MUTUAL_TLS, CLIENT_TLS].contains(option))
}

/// Writes a copy of gateway.toml with a section `[tls]`, and returns its path.
fn write_tls_config(secrets: &Secrets) -> io::Result<String> {
    let (folder, file) = (secrets.make_client_certificate()?, format!("{DATA}/gateway.toml"));
    let section = format!(
        "\n[tls]\nport = {CLIENT_TLS_PORT}\n[[tls.certificates]]\nnames = [\"localhost\"]\ncertificate = {:?}\nkey = {:?}\n",
        folder.join("tls.crt"),
        folder.join("tls.key")
    );
    fs::write(&file, fs::read_to_string("gateway.toml")? + &section)?;
    Ok(file)
}

/// Keeps all replicas running until it is killed.
pub fn supervise(options: &[&str]) -> io::Result<()> {
    Process::find(std::process::id()).ok_or(io::ErrorKind::NotFound)?.record(Path::new(RUN), SUPERVISOR)?;
    let exe = std::env::current_exe()?;
    let ports: Vec<u16> =
        programs().iter().flat_map(|program| program.port..program.port + program.replicas).collect();
    let secrets = Secrets::make(Path::new(SECRETS))?;
    let drain_grace = std::env::var("DRAIN_GRACE").unwrap_or("1s".to_owned());
    let seed_products = std::env::var("SEED_PRODUCTS").unwrap_or("on".to_owned());
    let lab = std::env::var("LAB").unwrap_or("on".to_owned());
    let traces = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap_or(COLLECTOR.to_owned());
    let console = format!("http://127.0.0.1:{}/", Program::named("console").port);
    let has = |option| options.contains(&option);
    let tls_folder = has(MUTUAL_TLS).then(|| secrets.make_certificates()).transpose()?;
    let config_file = has(CLIENT_TLS).then(|| write_tls_config(&secrets)).transpose()?;
    let mut variables = vec![
        ("STATE_FILE", "data/gateway-instances.json"),
        ("DRAIN_GRACE", &drain_grace),
        ("SEED_PRODUCTS", &seed_products),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &traces),
        ("CONSOLE_URL", &console),
        ("LAB", &lab),
    ];
    variables.extend(tls_folder.as_deref().map(|folder| ("TLS_FOLDER", folder)));
    variables.extend(config_file.as_deref().map(|file| ("CONFIG_FILE", file)));
    let layout = Layout {
        binaries: exe.parent().ok_or(io::ErrorKind::NotFound)?,
        folder: Path::new("."),
        data: Path::new(DATA),
        logs: Path::new(LOGS),
        ports: &ports,
        admin_port: ADMIN_PORT,
        secrets: &secrets,
        variables: &variables,
    };
    let replicas = layout.replicas()?;
    thread::scope(|scope| {
        for replica in replicas {
            scope.spawn(|| keep_running(replica));
        }
    });
    Ok(())
}

fn keep_running(mut replica: Replica) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let ended = match start(&mut replica).and_then(|()| replica.wait()) {
            Ok(status) => status.to_string(),
            Err(why) => why.to_string(),
        };
        if began.elapsed() >= STEADY {
            pause = FIRST_PAUSE;
        }
        let line = format!("{} ended ({ended}); it starts again in {} s", replica.name, pause.as_secs());
        replica.note(&line).unwrap_or_else(|why| eprintln!("{line}; {why}"));
        thread::sleep(pause);
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// Starts it and records its process, or does neither if `down` runs meanwhile.
fn start(replica: &mut Replica) -> io::Result<()> {
    let _lock = lock()?;
    replica.start()?;
    let Some(process) = replica.process() else { return Ok(()) };
    process.record(Path::new(RUN), &replica.name).inspect_err(|_| {
        // `down` would not find it.
        process.signal("-KILL");
    })
}

/// Held while a process is started and recorded, and by `down`.
fn lock() -> io::Result<File> {
    let file = File::create(format!("{RUN}/start.lock"))?;
    file.lock()?;
    Ok(file)
}

/// Ends every process that was recorded; with `wipe`, deletes data and secrets too.
pub fn down(wipe: bool) -> io::Result<()> {
    if Path::new(RUN).exists() {
        let _lock = lock()?;
        if let Some(supervisor) = process(SUPERVISOR) {
            supervisor.signal("-KILL");
        }
        Process::forget(Path::new(RUN), SUPERVISOR);
        let gateways: Vec<_> = gateway().replica_names().collect();
        let (gateways, others) = recorded()?.into_iter().partition(|name| gateways.contains(name));
        // The gateway last: the services leave its registry.
        stop(others)?;
        stop(gateways)?;
    }
    if wipe {
        for folder in [DATA, SECRETS] {
            if Path::new(folder).exists() {
                fs::remove_dir_all(folder)?;
            }
        }
    }
    Ok(())
}

/// The names of everything that was recorded.
fn recorded() -> io::Result<Vec<String>> {
    let files = fs::read_dir(RUN)?.filter_map(|file| file.ok()?.file_name().into_string().ok());
    Ok(files.filter_map(|file| Some(file.strip_suffix(".pid")?.to_owned())).collect())
}

fn stop(names: Vec<String>) -> io::Result<()> {
    let running: Vec<_> = names.iter().filter_map(|name| process(name)).collect();
    for process in &running {
        process.signal("-TERM");
    }
    let began = Instant::now();
    while running.iter().any(Process::is_running) && began.elapsed() < STOP_TIMEOUT {
        thread::sleep(Duration::from_millis(50));
    }
    for process in &running {
        process.signal("-KILL");
    }
    let began = Instant::now();
    while let Some(process) = running.iter().find(|process| process.is_running()) {
        if began.elapsed() > KILL_TIMEOUT {
            return Err(io::Error::other(format!("The process {} cannot be ended.", process.id)));
        }
        thread::sleep(Duration::from_millis(20));
    }
    for name in names {
        Process::forget(Path::new(RUN), &name);
    }
    Ok(())
}

/// The memory of all replicas together, in bytes.
pub fn memory() -> io::Result<u64> {
    let names = programs().iter().flat_map(|program| program.replica_names());
    names
        .map(|name| {
            let resident = process(&name).and_then(|process| resident(process.id));
            resident.ok_or_else(|| io::Error::other(format!("{name} does not run")))
        })
        .sum()
}
