//! The HTTP server of a program, with everything that is the same in every service.
//!
//! ```text
//! Listener::bind ─► Service::new ─► .data .routes .authenticate .database .messages .task .register
//!  port known                         └─► build() ─► Server ─► run()
//!                                         listens    address()  serves until SIGTERM, then drains
//! ```
//!
//! Every request passes the middleware in `service/middleware.rs`. It gives the request an id and a trace,
//! cancels it at its deadline, turns every error into a problem document (RFC 9457), and writes one log
//! line. `service/drain.rs` shuts a program down without failing a request.

#[cfg(feature = "db")]
mod database; // Service::database
mod access_log; // the log line of a request
mod conditional; // 304 for a client that has the current version
mod connection; // one client connection: limits, and requests one at a time
mod drain; // graceful shutdown
mod health; // /health, /metrics, /openapi.json
mod lab; // starts faults, and does those of requests
mod listener; // binds the port before anything else is made
mod middleware; // request id, trace, deadline, errors, log
mod resource; // one path: its methods, HEAD, OPTIONS and 405
mod routes; // routing table and OpenAPI document
mod server; // serves requests, runs background tasks, drains
mod shares; // how much of a program one client may have
mod workers; // accepts connections and serves them on threads

#[cfg(test)]
mod isolation_tests;

pub use access_log::{End, Field, LogFields, Sent, millis};
pub use connection::{Chunks, ClientLimits, Exchange, Malformed, Piece, Scheme};
pub use drain::ended_by_signal;
pub use health::{Check, DRAIN};
pub use listener::{BindError, HttpConfig, Listener, Replica};
pub use middleware::is_acceptable;
pub use resource::{Resource, resource};
pub use routes::Routes;
pub use server::{BuildFuture, Server, ServerHandle};
pub use shares::network;

use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::http::header::HeaderValue;
use actix_web::{HttpRequest, web};
use futures_util::future::{FutureExt as _, LocalBoxFuture};

use self::shares::PerClient;
use crate::auth::Authenticator;
use crate::lab::Lab;
use crate::metrics::Readings;
use crate::problem::Problem;
use crate::stop::Stop;
use crate::tls::{ClientTls, Tls};

/// Builder of a [`Server`].
pub struct Service {
    listener: Listener,
    /// The listener with TLS for clients.
    secure: Option<Listener>,
    parts: Parts,
}

#[derive(Default)]
struct Parts {
    configure: Vec<Arc<Configure>>,
    checks: Vec<Check>,
    sources: Vec<health::Source>,
    openapi: Option<String>,
    on_drain: Vec<LocalBoxFuture<'static, ()>>,
    tasks: Vec<Task>,
    edge: bool,
    per_client: Option<Arc<PerClient>>,
    ignores_signals: bool,
    tls: Option<Tls>,
    client_tls: Option<ClientTls>,
    redirect: Option<Arc<middleware::Redirect>>,
    hsts: Option<Arc<middleware::Hsts>>,
    log_fields: Option<Arc<middleware::BeginFields>>,
    /// The lab; `None` without `LAB=on`.
    lab: Option<Lab>,
    has_lab_calls: bool,
}

type Configure = dyn Fn(&mut web::ServiceConfig) + Send + Sync;

struct Task {
    name: &'static str,
    start: Box<dyn FnOnce(Stop) -> LocalBoxFuture<'static, ()>>,
}

impl Service {
    pub fn new(listener: Listener) -> Self {
        let lab = listener.config.lab.clone();
        Self { listener, secure: None, parts: Parts { lab, ..Parts::default() } }
    }

    /// Shorthand for [`Listener::bind`] and [`Service::new`].
    #[cfg(any(test, feature = "testing"))]
    pub fn bind(name: &'static str, http: HttpConfig) -> Result<Self, BindError> {
        Ok(Self::new(Listener::bind(name, http)?))
    }

    /// Runs `configure` once per worker thread. Create state that workers share outside of it.
    pub fn configure(mut self, configure: impl Fn(&mut web::ServiceConfig) + Send + Sync + 'static) -> Self {
        self.parts.configure.push(Arc::new(configure));
        self
    }

    /// Makes `data` available to handlers as `web::Data<T>`, shared by all workers.
    pub fn data<T: Send + Sync + 'static>(self, data: T) -> Self {
        let data = web::Data::new(data);
        self.configure(move |app| {
            app.app_data(data.clone());
        })
    }

    /// Serves `routes`, and their OpenAPI document at `/openapi.json`.
    pub fn routes(mut self, routes: Routes) -> Self {
        match routes.document().to_json() {
            Ok(json) => self.parts.openapi = Some(json),
            Err(error) => log::error!(error:%; "the OpenAPI document cannot be written"),
        }
        self.configure(move |app| routes.configure(app))
    }

    /// Lets handlers extract the authenticated caller; see [`crate::auth`]. With a lab, admins may use it.
    pub fn authenticate(mut self, authenticator: Authenticator) -> Self {
        self.parts.has_lab_calls = true;
        self.data(authenticator)
    }

    /// The lab; `None` without `LAB=on`.
    #[cfg(feature = "db")]
    pub(crate) fn lab(&self) -> Option<Lab> {
        self.parts.lab.clone()
    }

    /// Lets every client that reaches the port use the lab, except a page in a browser. Only for a program without
    /// admins, on a private network.
    pub fn open_lab(mut self) -> Self {
        self.parts.has_lab_calls = true;
        self
    }

    /// Adds a critical dependency: while the check fails, `/health/ready` answers 503.
    pub fn check<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        self.parts.checks.push(Check::new(name, true, move || check().boxed_local()));
        self
    }

    /// Adds an optional dependency: while the check fails, the service is ready but reports `degraded`.
    pub fn advisory<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        self.parts.checks.push(Check::new(name, false, move || check().boxed_local()));
        self
    }

    /// Adds gauges that are collected at each scrape of `/metrics`.
    pub fn measure(mut self, source: impl Fn(&mut Readings) + Send + Sync + 'static) -> Self {
        self.parts.sources.push(Box::new(source));
        self
    }

    /// Runs `action` when a drain begins, before the grace time.
    pub fn on_drain(mut self, action: impl Future<Output = ()> + 'static) -> Self {
        self.parts.on_drain.push(action.boxed_local());
        self
    }

    /// Runs a background task on the main thread. `stop` is requested after the last request is answered;
    /// the task must then end soon. A task that ends earlier drains the service.
    pub fn task<F>(mut self, name: &'static str, task: impl FnOnce(Stop) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        self.parts.tasks.push(Task { name, start: Box::new(move |stop| task(stop).boxed_local()) });
        self
    }

    /// Ignores the deadlines that clients send, and leaves it to the handlers to refuse what is not [`is_acceptable`].
    /// For a program that faces the public: only services send deadlines.
    pub fn edge(mut self) -> Self {
        self.parts.edge = true;
        self
    }

    /// Limits the connections of one client to `max`, and its concurrent requests over HTTP/2 too. A client is an IPv4
    /// address or an IPv6 network of 64 bits. Clients that `is_exempt` names have no limit: proxies, which connect for
    /// others.
    pub fn limit_clients(
        mut self,
        max: usize,
        is_exempt: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.parts.per_client = Some(Arc::new(PerClient { max, is_exempt: Box::new(is_exempt) }));
        self
    }

    /// Ignores SIGTERM and SIGINT; only the [`ServerHandle`] stops it. For a program's second listener.
    pub fn without_signals(mut self) -> Self {
        self.parts.ignores_signals = true;
        self
    }

    /// Accepts only clients with a certificate, if `tls` is given.
    pub fn tls(mut self, tls: Option<Tls>) -> Self {
        self.parts.tls = tls.clone();
        self.measure(move |readings| tls.iter().for_each(|tls| tls.measure(readings)))
    }

    /// Serves clients with TLS on a second port. Connections of both ports count together.
    pub fn client_tls(mut self, tls: ClientTls, listener: Listener) -> Self {
        (self.parts.client_tls, self.secure) = (Some(tls), Some(listener));
        self
    }

    /// Answers 308 to the requests for which `target` returns a URL, and refuses those for which it returns a problem.
    /// Health is never redirected.
    pub fn redirect(
        mut self,
        target: impl Fn(&HttpRequest) -> Result<Option<String>, Problem> + Send + Sync + 'static,
    ) -> Self {
        self.parts.redirect = Some(Arc::new(target));
        self
    }

    /// Adds `Strict-Transport-Security` to the responses over [`Service::client_tls`] while `value` returns one.
    pub fn hsts(mut self, value: impl Fn() -> Option<HeaderValue> + Send + Sync + 'static) -> Self {
        self.parts.hsts = Some(Arc::new(value));
        self
    }

    /// Adds fields to the log line of every request, also of one that no handler sees. `begin` is called when the request
    /// arrives. The line of a client that leaves before the response is written, too.
    pub fn log_fields(
        mut self,
        begin: impl Fn(&HttpRequest) -> Option<Rc<dyn LogFields>> + Send + Sync + 'static,
    ) -> Self {
        self.parts.log_fields = Some(Arc::new(begin));
        self
    }

    /// Starts to listen. The kernel queues connections until [`Server::run`].
    pub fn build(self) -> Result<Server, BindError> {
        let Self { listener, secure, parts } = self;
        let http = listener.config.clone();
        let (listener, replica) = listener.listen()?;
        let secure = secure.map(Listener::listen).transpose()?.map(|(listener, _)| listener);
        Ok(Server::new(parts, http, listener, secure, replica))
    }
}
