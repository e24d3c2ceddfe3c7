//! The service template: everything that is the same in every program.
//!
//! ```text
//! Service::new ─► .routes .database .openapi .join .messages .task ─► build() ─► Server ─► run()
//!                                                                    binds      address()   until SIGTERM
//! ```
//!
//! Every request passes the frame (`service/frame.rs`), which gives it an id and a trace, ends it at its
//! deadline, turns every error into a problem document, and writes one line of log. Draining
//! (`service/drain.rs`) is how a program ends without failing a request.

mod drain;
mod frame;
mod health;
mod resource;

pub use frame::RouteLabel;
pub use health::{Check, DRAIN};
pub use resource::{Resource, resource};

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::middleware::from_fn;
use actix_web::rt::task::JoinHandle;
use actix_web::{App, HttpServer, web};
use futures_util::future::{FutureExt as _, LocalBoxFuture, select_all};

use crate::auth::Authenticator;
use crate::body::BODY_LIMIT;
use crate::config::Vars;
use crate::db::Db;
use crate::idempotency::Running;
use crate::metrics::Readings;
use crate::stop::{Stop, Stopper};
use crate::trace;
use drain::Drain;

/// How a program serves HTTP.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 picks a free one.
    pub port: u16,
    /// This replica's name; `$HOSTNAME-<port>` if absent.
    pub instance: Option<String>,
    /// How long a draining program goes on accepting, so that balancers notice.
    pub drain_grace: Duration,
    /// How long what runs may take to finish after that.
    pub drain_limit: Duration,
    /// The machine's name: the replica's comes of it, and others reach it by it.
    pub hostname: String,
    /// The collector of traces; they are not recorded if absent.
    pub traces: Option<url::Url>,
}

impl HttpConfig {
    /// Reads `HOST`, `PORT`, `INSTANCE`, `HOSTNAME`, `DRAIN_GRACE`, `DRAIN_LIMIT` and
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn from_vars(vars: &mut Vars, default_port: &str) -> Self {
        Self {
            host: vars.or("HOST", "127.0.0.1", "address to listen on"),
            port: vars.or("PORT", default_port, "port to listen on; 0 picks a free one"),
            instance: vars.optional("INSTANCE", "name of this replica; HOSTNAME-PORT if absent"),
            drain_grace: vars.or("DRAIN_GRACE", "5s", "how long to go on accepting after SIGTERM"),
            drain_limit: vars.or("DRAIN_LIMIT", "30s", "how long running requests may take after that"),
            hostname: vars.or("HOSTNAME", "localhost", "name of this machine"),
            traces: vars.optional("OTEL_EXPORTER_OTLP_ENDPOINT", "collector of traces: OTLP, HTTP, JSON"),
        }
    }

    /// A free port on loopback and no grace, for tests.
    pub fn for_tests() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 0,
            instance: None,
            drain_grace: Duration::ZERO,
            drain_limit: Duration::from_secs(5),
            hostname: "test".to_owned(),
            traces: None,
        }
    }
}

/// A program being put together.
pub struct Service {
    name: &'static str,
    version: &'static str,
    http: HttpConfig,
    routes: Vec<Arc<Configure>>,
    checks: Vec<Check>,
    sources: Vec<health::Source>,
    openapi: Option<String>,
    on_bind: Vec<OnBind>,
    on_drain: Vec<LocalBoxFuture<'static, ()>>,
    tasks: Vec<Task>,
    edge: bool,
    reuse_port: bool,
    signals: bool,
}

type OnBind = Box<dyn FnOnce(&Replica)>;

type Configure = dyn Fn(&mut web::ServiceConfig) + Send + Sync;

struct Task {
    name: &'static str,
    start: Box<dyn FnOnce(Stop) -> LocalBoxFuture<'static, ()>>,
}

/// Who this process is, once it listens.
#[derive(Debug, Clone)]
pub struct Replica {
    /// The service.
    pub service: &'static str,
    /// This replica of it.
    pub instance: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The name of its machine.
    pub hostname: String,
}

impl Service {
    /// A service called `name`, as the registry and its problems call it.
    pub fn new(name: &'static str, http: HttpConfig) -> Self {
        Self {
            name,
            version: env!("CARGO_PKG_VERSION"),
            http,
            routes: Vec::new(),
            checks: Vec::new(),
            sources: Vec::new(),
            openapi: None,
            on_bind: Vec::new(),
            on_drain: Vec::new(),
            tasks: Vec::new(),
            edge: false,
            reuse_port: false,
            signals: true,
        }
    }

    /// Adds routes and their data. Runs once per worker thread: what they share is made outside.
    pub fn routes(mut self, routes: impl Fn(&mut web::ServiceConfig) + Send + Sync + 'static) -> Self {
        self.routes.push(Arc::new(routes));
        self
    }

    /// Checks tokens with `authenticator`.
    pub fn authenticate(self, authenticator: Authenticator) -> Self {
        let authenticator = web::Data::new(authenticator);
        self.routes(move |app| {
            app.app_data(authenticator.clone());
        })
    }

    /// Adds something without which this service cannot work: while it fails, it is not ready.
    pub fn check<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        self.checks.push(Check::new(name, true, move || check().boxed_local()));
        self
    }

    /// Adds something without which this service works less well: while it fails, it is degraded.
    pub fn advisory<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        self.checks.push(Check::new(name, false, move || check().boxed_local()));
        self
    }

    /// Depends on this database: while it does not answer, the service is not ready. Its connections are
    /// told at `/metrics`.
    pub fn database(self, db: &Db) -> Self {
        let (checked, measured) = (db.clone(), db.clone());
        self.check("database", move || {
            let db = checked.clone();
            async move { db.ping().await.map_err(|error| error.to_string()) }
        })
        .measure(move |readings| measured.measure(readings))
    }

    /// Adds numbers that are read each time somebody asks for `/metrics`.
    pub fn measure(mut self, source: impl Fn(&mut Readings) + Send + Sync + 'static) -> Self {
        self.sources.push(Box::new(source));
        self
    }

    /// Serves this OpenAPI document at `/openapi.json`.
    pub fn openapi(mut self, document: &utoipa::openapi::OpenApi) -> Self {
        match document.to_json() {
            Ok(json) => self.openapi = Some(json),
            Err(error) => log::error!(error:%; "the OpenAPI document cannot be written"),
        }
        self
    }

    /// Runs `action` when the address is known, before the first request.
    pub fn on_bind(mut self, action: impl FnOnce(&Replica) + 'static) -> Self {
        self.on_bind.push(Box::new(action));
        self
    }

    /// Runs `action` at the beginning of a drain: the time to leave the registry.
    pub fn on_drain(mut self, action: impl Future<Output = ()> + 'static) -> Self {
        self.on_drain.push(action.boxed_local());
        self
    }

    /// Runs a background task on the main thread while the service runs; it must end soon after it
    /// is told to stop, which is after the last request.
    pub fn task<F>(mut self, name: &'static str, task: impl FnOnce(Stop) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        self.tasks.push(Task { name, start: Box::new(move |stop| task(stop).boxed_local()) });
        self
    }

    /// Faces the public: what only hops of the stack say to each other is not taken from clients.
    pub fn edge(mut self) -> Self {
        self.edge = true;
        self
    }

    /// Lets another process listen on the same port, so that a new one can start before this ends.
    pub fn reuse_port(mut self) -> Self {
        self.reuse_port = true;
        self
    }

    /// Ends only by its [`ServerHandle`]: for a second listener of a program.
    pub fn without_signals(mut self) -> Self {
        self.signals = false;
        self
    }

    /// Binds the listener.
    ///
    /// # Errors
    /// When the address cannot be listened on, naming it.
    pub async fn build(self) -> Result<Server, BindError> {
        let HttpConfig { host, port, .. } = &self.http;
        let listener = listen(host, *port, self.reuse_port)
            .map_err(|source| BindError { address: format!("{host}:{port}"), source })?;
        let address = listener
            .local_addr()
            .map_err(|source| BindError { address: format!("{host}:{port}"), source })?;
        let instance = self.http.instance.clone();
        let instance = instance.unwrap_or_else(|| format!("{}-{}", self.http.hostname, address.port()));
        let hostname = self.http.hostname.clone();
        let replica = Replica { service: self.name, instance, address, hostname };
        let (drain, drained) = (Stop::pair(), Stop::pair());
        let mut service = self;
        for action in std::mem::take(&mut service.on_bind) {
            action(&replica);
        }
        Ok(Server { service, listener, replica, drain: (Arc::new(drain.0), drain.1), drained })
    }
}

/// Why a service could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    address: String,
    source: std::io::Error,
}

/// Pending connections the system keeps; std's 128 overflow in a burst.
const BACKLOG: i32 = 1024;

fn listen(host: &str, port: u16, reuse_port: bool) -> std::io::Result<TcpListener> {
    let resolved = std::net::ToSocketAddrs::to_socket_addrs(&(host, port))?.next();
    let address = resolved.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A service that listens and waits to be run.
pub struct Server {
    service: Service,
    listener: TcpListener,
    replica: Replica,
    drain: (Arc<Stopper>, Stop),
    drained: (Stopper, Stop),
}

/// Ends a running [`Server`], as SIGTERM would.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    drain: Arc<Stopper>,
    drained: Stop,
}

impl ServerHandle {
    /// Drains the server and waits until it is gone.
    pub async fn stop(&self) {
        self.drain.stop();
        self.drained.requested().await;
    }
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.replica.address
    }

    /// The name of this replica.
    pub fn instance(&self) -> &str {
        &self.replica.instance
    }

    /// What ends it.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { drain: self.drain.0.clone(), drained: self.drained.1.clone() }
    }

    /// Serves until SIGTERM, SIGINT or [`ServerHandle::stop`], then drains.
    ///
    /// # Errors
    /// When serving fails, or a background task ends before it is told to: a replica without its
    /// relay or its timers drains, so that it is started again.
    pub async fn run(self) -> Result<(), std::io::Error> {
        let Self { service, listener, replica, drain, drained } = self;
        let Service { name, version, http, routes, checks, sources, openapi, .. } = service;
        let (on_drain, tasks, edge, signals) =
            (service.on_drain, service.tasks, service.edge, service.signals);
        let draining = Drain::new(drain.1.clone());
        let frame = web::Data::new(frame::Frame::new(name, draining.clone(), edge));
        let health = web::Data::new(health::Health::new(&replica, version, checks, draining.clone()));
        let sources = web::Data::new(sources);
        let documented = openapi.is_some();
        let openapi = web::Data::new(health::OpenApiDocument(openapi));
        let running = web::Data::new(Running::default());
        let stop_streams = web::Data::new(drain.1.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(frame.clone())
                .app_data(health.clone())
                .app_data(sources.clone())
                .app_data(openapi.clone())
                .app_data(running.clone())
                .app_data(stop_streams.clone())
                .app_data(web::PayloadConfig::new(BODY_LIMIT))
                .configure(|app| health::configure(app, edge, documented))
                // Before the routes, which may bring a default of their own.
                .default_service(web::to(resource::not_found))
                .configure(|app| routes.iter().for_each(|configure| configure(app)))
                .wrap(from_fn(frame::deadline))
                .wrap(from_fn(frame::frame))
        })
        .workers(workers())
        // Longer than clients keep idle connections (30 s), so that they close first.
        .keep_alive(Duration::from_secs(75))
        .client_request_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .disable_signals()
        .listen(listener)?
        .run();
        let handle = server.handle();
        let serving = actix_web::rt::spawn(server);

        let exporter = http.traces.and_then(|collector| trace::start(&collector, name, &replica.instance));
        let exporter = exporter.map(|exporter| Task {
            name: "traces",
            start: Box::new(|stop| exporter.run(stop).boxed_local()),
        });
        let (stopper, stop) = Stop::pair();
        let mut tasks: Vec<_> = tasks
            .into_iter()
            .chain(exporter)
            .map(|task| (task.name, actix_web::rt::spawn((task.start)(stop.clone()))))
            .collect();
        log::info!(instance = replica.instance, address = replica.address.to_string(); "listening");

        let lost = tokio::select! {
            () = drain::requested(&drain.1, signals) => None,
            lost = first_to_end(&mut tasks) => Some(lost),
        };
        drain.0.stop();
        if let Some(task) = lost {
            log::error!(task; "a background task ended early");
        }
        log::info!(instance = replica.instance; "draining");
        for action in on_drain {
            action.await;
        }
        draining.finish(&handle, http.drain_grace, http.drain_limit).await;
        stopper.stop();
        for (name, task) in tasks {
            if let Err(error) = task.await {
                log::error!(task = name, error:%; "a background task failed");
            }
        }
        let served = serving.await.unwrap_or_else(|failed| Err(std::io::Error::other(failed)));
        log::info!(instance = replica.instance; "stopped");
        drained.0.stop();
        match lost {
            Some(task) => Err(std::io::Error::other(format!("the background task {task} ended early"))),
            None => served,
        }
    }
}

/// Waits until one of `tasks` ends, and takes it out.
async fn first_to_end(tasks: &mut Vec<(&'static str, JoinHandle<()>)>) -> &'static str {
    if tasks.is_empty() {
        return std::future::pending().await;
    }
    let (ended, index, _) = select_all(tasks.iter_mut().map(|(_, task)| task)).await;
    if let Err(error) = ended {
        log::error!(error:%; "a background task failed");
    }
    tasks.remove(index).0
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(4)
}
