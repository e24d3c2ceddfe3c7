//! Runs a service: serves requests, runs the background tasks, and drains.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_http::{HttpService, KeepAlive, Protocol, Request};
use actix_service::{IntoServiceFactory, Service as _, ServiceFactory, fn_factory, fn_service};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::middleware::from_fn;
use actix_web::rt::task::JoinHandle;
use actix_web::{App, Error, web};
use futures_util::TryFutureExt as _;
use futures_util::future::{FutureExt as _, LocalBoxFuture, ready, select_all};
use socket2::SockRef;

use super::connection::{ClientLimits, Connection, Exchange, Http2, IdleConnections, Lent, Scheme};
use super::drain::{self, Drain};
use super::shares::Shares;
use super::workers::{MakeServe, Serve, Workers};
use super::{HttpConfig, Parts, Replica, Task, health, lab, middleware, resource};
use crate::body::BODY_LIMIT;
use crate::limits;
use crate::otlp;
use crate::stop::{Stop, Stopper};
use crate::tls::{ClientTls, Stream, Tls};

/// Result of `app::build`. The future is boxed, so that it is compiled once with the app's library, and not
/// again in the program and in every test.
pub type BuildFuture<E> = LocalBoxFuture<'static, Result<Server, E>>;

/// A service that listens and is ready to [`run`](Server::run).
pub struct Server {
    parts: Parts,
    http: HttpConfig,
    listener: TcpListener,
    /// The listener with TLS for clients.
    secure: Option<TcpListener>,
    replica: Replica,
    drain: (Arc<Stopper>, Stop),
    drained: (Stopper, Stop),
}

/// Stops a running [`Server`], as SIGTERM does.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    drain: Arc<Stopper>,
    drained: Stop,
}

impl ServerHandle {
    /// Drains the server and waits until it has stopped.
    pub async fn stop(&self) {
        self.drain.stop();
        self.drained.requested().await;
    }
}

impl Server {
    pub(super) fn new(
        parts: Parts,
        http: HttpConfig,
        listener: TcpListener,
        secure: Option<TcpListener>,
        replica: Replica,
    ) -> Self {
        let (drain, drained) = (Stop::pair(), Stop::pair());
        Self { parts, http, listener, secure, replica, drain: (Arc::new(drain.0), drain.1), drained }
    }

    pub fn address(&self) -> SocketAddr {
        self.replica.address
    }

    /// Where clients connect with TLS, if they can.
    pub fn secure_address(&self) -> Option<SocketAddr> {
        self.secure.as_ref()?.local_addr().ok()
    }

    pub fn handle(&self) -> ServerHandle {
        ServerHandle { drain: self.drain.0.clone(), drained: self.drained.1.clone() }
    }

    /// Serves until SIGTERM, SIGINT or [`ServerHandle::stop`], then drains.
    ///
    /// # Errors
    /// When serving fails, or when a background task ends early. A replica without its relay or its timers
    /// is of no use: it drains, and its supervisor restarts it.
    pub fn run(self) -> LocalBoxFuture<'static, Result<(), std::io::Error>> {
        // Boxed for the same reason as [`BuildFuture`].
        self.serve().boxed_local()
    }

    async fn serve(self) -> Result<(), std::io::Error> {
        let Self { mut parts, http, listener, secure, replica, drain, drained } = self;
        let draining = Drain::new(drain.1.clone());
        let (closer, closing) = Stop::pair();
        let max_connections = http.max_connections.min(most_connections());
        let connections = Shares::new(max_connections, parts.per_client.clone());
        let clients = Clients {
            service: replica.service,
            requests: Shares::new(max_connections, parts.per_client.take()),
            limits: http.limits,
            tls: parts.tls.take(),
            client_tls: parts.client_tls.take(),
            draining: drain.1.clone(),
            closing: closing.clone(),
        };
        let (tasks, on_drain) = (std::mem::take(&mut parts.tasks), std::mem::take(&mut parts.on_drain));
        let has_signals = !parts.ignores_signals;
        let make = make_serve(parts, &replica, &draining, clients);
        let workers = Workers::start(workers(), connections.clone(), make)?;
        let accepting = actix_web::rt::spawn(workers.accept(listener, secure, closing));
        let mut tasks = Tasks::start(tasks, &http, &replica);
        log::info!(instance = replica.instance, address = replica.address.to_string(); "listening");

        let lost = tokio::select! {
            () = drain::requested(&drain.1, has_signals) => None,
            lost = tasks.first_to_end() => Some(lost),
        };
        drain.0.stop();
        if let Some(task) = lost {
            log::error!(task; "a background task ended early");
        }
        log::info!(instance = replica.instance; "draining");
        let end = Instant::now() + http.drain_grace + http.drain_limit;
        run_actions(on_drain, http.drain_grace, end).await;
        closer.stop();
        let served = accepting.await.unwrap_or_else(|failed| Err(std::io::Error::other(failed)));
        wait_for_requests(&connections, &draining, end).await;
        let served = match served {
            Ok(workers) => {
                workers.stop().await;
                Ok(())
            }
            Err(error) => Err(error),
        };
        tasks.stop().await;
        log::info!(instance = replica.instance; "stopped");
        // The lines of the last requests may wait.
        log::logger().flush();
        drained.0.stop();
        match lost {
            Some(task) => Err(std::io::Error::other(format!("the background task {task} ended early"))),
            None => served,
        }
    }
}

/// Makes the server of a worker, which has an app of its own.
fn make_serve(parts: Parts, replica: &Replica, draining: &Drain, clients: Clients) -> Arc<MakeServe> {
    let Parts { configure, checks, sources, openapi, edge, lab, has_lab_calls, .. } = parts;
    let middleware = middleware::Middleware::new(
        clients.service,
        draining.clone(),
        edge,
        parts.redirect,
        parts.hsts,
        parts.log_fields,
    );
    let middleware = web::Data::new(middleware);
    let health = web::Data::new(health::Health {
        replica: replica.clone(),
        started: Instant::now(),
        checks,
        sources,
        openapi,
        drain: draining.clone(),
    });
    let stop_streams = web::Data::new(clients.draining.clone());
    let has_lab = lab.is_some();
    let lab = lab.map(web::Data::new);
    let app = move || {
        App::new()
            .app_data(middleware.clone())
            .app_data(stop_streams.clone())
            .app_data(web::PayloadConfig::new(BODY_LIMIT))
            .configure(|app| health::configure(app, &health, edge))
            .configure(|app| lab.iter().for_each(|data| lab::configure(app, data, has_lab_calls)))
            // Before the routes, because they may set a default service of their own.
            .default_service(web::to(resource::not_found))
            .configure(|app| configure.iter().for_each(|configure| configure(app)))
    };
    match has_lab {
        false => {
            let app = move || app().wrap(from_fn(middleware::middleware));
            Arc::new(move |idle| serve(app(), clients.clone(), idle).boxed_local())
        }
        true => {
            if has_lab_calls {
                log::warn!("LAB is on: admins can make this program fail");
            }
            let app = move || app().wrap(from_fn(lab::misbehave)).wrap(from_fn(middleware::middleware));
            Arc::new(move |idle| serve(app(), clients.clone(), idle).boxed_local())
        }
    }
}

/// The background tasks that run, with their names.
struct Tasks {
    running: Vec<(&'static str, JoinHandle<()>)>,
    stopper: Stopper,
}

impl Tasks {
    /// Starts `tasks`, and the exporter if there is a collector.
    fn start(tasks: Vec<Task>, http: &HttpConfig, replica: &Replica) -> Self {
        let exporter =
            http.otlp.as_ref().and_then(|config| otlp::start(config, replica.service, &replica.instance));
        let exporter = exporter.map(|exporter| Task {
            name: "telemetry",
            start: Box::new(|stop| exporter.run(stop).boxed_local()),
        });
        let (stopper, stop) = Stop::pair();
        let start = |task: Task| (task.name, actix_web::rt::spawn((task.start)(stop.clone())));
        Self { running: tasks.into_iter().chain(exporter).map(start).collect(), stopper }
    }

    /// Waits until one ends, removes it and returns its name.
    async fn first_to_end(&mut self) -> &'static str {
        if self.running.is_empty() {
            return std::future::pending().await;
        }
        let (ended, index, _) = select_all(self.running.iter_mut().map(|(_, task)| task)).await;
        if let Err(error) = ended {
            log::error!(error:%; "a background task failed");
        }
        self.running.remove(index).0
    }

    /// Stops all, and waits until they have ended.
    async fn stop(self) {
        self.stopper.stop();
        for (name, task) in self.running {
            if let Err(error) = task.await {
                log::error!(task = name, error:%; "a background task failed");
            }
        }
    }
}

/// Runs the actions of a drain, for at least `grace` and at most until `end`.
async fn run_actions(actions: Vec<LocalBoxFuture<'static, ()>>, grace: Duration, end: Instant) {
    let actions = async {
        for action in actions {
            action.await;
        }
    };
    let (_, ()) = tokio::join!(tokio::time::timeout_at(end.into(), actions), tokio::time::sleep(grace));
}

/// Waits until clients have left, or until `end`.
async fn wait_for_requests(connections: &Shares, draining: &Drain, end: Instant) {
    while connections.open() > 0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if draining.in_flight() > 0 {
        log::warn!(requests = draining.in_flight(); "drain limit exceeded: running requests are cut off");
    }
}

/// Bytes of responses that the kernel holds for a connection, beside those that are on their way. By itself it takes
/// some megabytes, also for a client that does not read.
const MAX_UNSENT: u32 = 128 * 1024;
/// How long a drain waits for the first request of a connection.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// The state that all connections share.
#[derive(Clone)]
struct Clients {
    service: &'static str,
    limits: ClientLimits,
    /// The running requests over HTTP/2. On HTTP/1.1, the number of connections limits the requests.
    requests: Arc<Shares>,
    /// TLS of a service, for all connections.
    tls: Option<Tls>,
    /// TLS of the second listener.
    client_tls: Option<ClientTls>,
    draining: Stop,
    closing: Stop,
}

impl Clients {
    /// The stream to a client, and whether it wants HTTP/2.
    async fn accept(&self, stream: TcpStream, scheme: Scheme) -> std::io::Result<(Stream, bool)> {
        stream.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(MAX_UNSENT);
        match (scheme, &self.client_tls, &self.tls) {
            // Boxed: a connection without TLS needs no room for a handshake.
            (Scheme::Https, Some(tls), _) => Box::pin(tls.accept(stream, self.limits.head_timeout)).await,
            (_, _, Some(tls)) => Ok((Box::pin(tls.accept(stream, self.limits.head_timeout)).await?, false)),
            (_, _, None) => Ok((Stream::Plain(stream), false)),
        }
    }
}

/// Serves the connections of one worker with `app`.
async fn serve<F, A, B>(app: A, clients: Clients, idle: Rc<IdleConnections>) -> Serve
where
    A: IntoServiceFactory<F, Request>,
    F: ServiceFactory<
            Request,
            Config = AppConfig,
            Response = ServiceResponse<B>,
            Error = Error,
            InitError = (),
        > + 'static,
    F::Service: 'static,
    B: MessageBody + 'static,
{
    let Ok(app) = app.into_factory().new_service(AppConfig::default()).await else {
        log::error!("the app cannot be built");
        return Rc::new(|_, _, _| ready(()).boxed_local());
    };
    let app = Rc::new(app);
    let Clients { service, limits, requests, draining, closing, .. } = clients.clone();
    let clients = Rc::new(clients);
    let http2 = Rc::new(Http2 { app: app.clone(), service, limits, requests, idle: idle.clone(), draining });
    let http1 = HttpService::build()
        // The connection limits the time between requests, and the time of a head.
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .graceful_shutdown_signal({
            let closing = closing.clone();
            move || end_of_connection(closing.clone())
        })
        .on_connect_ext(|connection: &Lent<Stream>, data| {
            data.insert::<Rc<Exchange>>(connection.exchange());
        })
        .finish(fn_factory(move || {
            let app = app.clone();
            let handle = move |request| app.call(request).map_err(|error| error.error_response());
            ready(Ok::<_, ()>(fn_service(handle)))
        }));
    let http1 = Rc::new(http1.new_service(()).await);
    Rc::new(move |stream: TcpStream, peer, scheme| {
        let (clients, http1, http2, idle) = (clients.clone(), http1.clone(), http2.clone(), idle.clone());
        let closing = closing.clone();
        async move {
            let Ok(http1) = http1.as_ref() else { return };
            match clients.accept(stream, scheme).await {
                Ok((stream, true)) => Box::pin(http2.serve(stream, peer)).await,
                Ok((stream, false)) => {
                    let connection = Connection::new(stream, peer.ip(), scheme, service, limits, &idle);
                    let dispatch = |connection| http1.call((connection, Protocol::Http1, Some(peer)));
                    connection.serve(end_of_connection(closing), dispatch).await;
                }
                Err(_) => {}
            }
        }
        .boxed_local()
    })
}

/// Ready when `closing` ends a connection that was accepted now: it is served once, because its request may still be on
/// its way.
fn end_of_connection(closing: Stop) -> impl Future<Output = ()> {
    let accepted = Instant::now();
    async move {
        closing.requested().await;
        tokio::time::sleep_until((accepted + FIRST_REQUEST).into()).await;
    }
}

/// Half of the descriptors: a client's connection may need one towards a replica, and some are for files.
fn most_connections() -> usize {
    usize::try_from(limits::descriptors() / 2).unwrap_or(usize::MAX).saturating_sub(50).max(1)
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(4)
}
