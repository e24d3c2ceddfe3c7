//! The service template: everything that is the same in every program.
//!
//! ```text
//! Listener::bind ─► Service::new ─► .data .routes .authenticate .database .messages .task .register
//!  port known                         └─► build() ─► Server ─► run()
//!                                         listens    address()  serves until SIGTERM, then drains
//! ```
//!
//! Every request passes the middleware in `service/middleware.rs`: it gives the request an id and a trace,
//! ends it at its deadline, turns every error into a problem document, and writes one line of log.
//! `service/drain.rs` ends a program without failing a request.

#[cfg(feature = "db")]
mod database; // Service::database
mod drain; // graceful stop
mod health; // /health, /metrics, /openapi.json
mod listener; // the port, bound before the rest
mod middleware; // what every request passes
mod resource; // all methods of one path
mod routes; // the routing table and its OpenAPI document
mod server; // serves, runs the tasks, drains

pub use health::{Check, DRAIN};
pub use listener::{BindError, HttpConfig, Listener, Replica};
pub use middleware::RouteLabel;
pub use resource::{Resource, resource};
pub use routes::Routes;
pub use server::{BuildFuture, Server, ServerHandle};

use std::future::Future;
use std::sync::Arc;

use actix_web::web;
use futures_util::future::{FutureExt as _, LocalBoxFuture};

use crate::auth::Authenticator;
use crate::metrics::Readings;
use crate::stop::Stop;

/// A program being put together.
pub struct Service {
    listener: Listener,
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
    ignores_signals: bool,
}

type Configure = dyn Fn(&mut web::ServiceConfig) + Send + Sync;

struct Task {
    name: &'static str,
    start: Box<dyn FnOnce(Stop) -> LocalBoxFuture<'static, ()>>,
}

impl Service {
    pub fn new(listener: Listener) -> Self {
        Self { listener, parts: Parts::default() }
    }

    /// A service on a port of its own: [`Listener::bind`] and [`Service::new`].
    pub fn bind(name: &'static str, http: HttpConfig) -> Result<Self, BindError> {
        Ok(Self::new(Listener::bind(name, http)?))
    }

    /// Runs `configure` once per worker thread. State that workers share is made outside of it.
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
    pub fn routes(self, routes: Routes) -> Self {
        let document = routes.document(self.listener.replica().service);
        self.openapi(&document).configure(move |app| routes.configure(app))
    }

    /// Serves this document at `/openapi.json`.
    pub fn openapi(mut self, document: &utoipa::openapi::OpenApi) -> Self {
        match document.to_json() {
            Ok(json) => self.parts.openapi = Some(json),
            Err(error) => log::error!(error:%; "the OpenAPI document cannot be written"),
        }
        self
    }

    /// Checks bearer tokens with `authenticator`.
    pub fn authenticate(self, authenticator: Authenticator) -> Self {
        self.data(authenticator)
    }

    /// Adds a dependency without which this service cannot work: while the check fails, it is not ready.
    pub fn check<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        self.parts.checks.push(Check::new(name, true, move || check().boxed_local()));
        self
    }

    /// Adds a dependency without which this service works less well: while the check fails, it is degraded.
    pub fn advisory<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        self.parts.checks.push(Check::new(name, false, move || check().boxed_local()));
        self
    }

    /// Adds gauges that are read at each request for `/metrics`.
    pub fn measure(mut self, source: impl Fn(&mut Readings) + Send + Sync + 'static) -> Self {
        self.parts.sources.push(Box::new(source));
        self
    }

    /// Runs `action` at the beginning of a drain.
    pub fn on_drain(mut self, action: impl Future<Output = ()> + 'static) -> Self {
        self.parts.on_drain.push(action.boxed_local());
        self
    }

    /// Runs a background task on the main thread while the service runs. It must end soon after `stop` is
    /// requested, which happens after the last request.
    pub fn task<F>(mut self, name: &'static str, task: impl FnOnce(Stop) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        self.parts.tasks.push(Task { name, start: Box::new(move |stop| task(stop).boxed_local()) });
        self
    }

    /// Faces the public: headers that only hops of the stack send to each other are not taken from clients.
    pub fn edge(mut self) -> Self {
        self.parts.edge = true;
        self
    }

    /// Ends only by its [`ServerHandle`]: for a second listener of a program.
    pub fn without_signals(mut self) -> Self {
        self.parts.ignores_signals = true;
        self
    }

    /// Starts to listen. Connections wait in the system's queue until [`Server::run`].
    pub fn build(self) -> Result<Server, BindError> {
        let Self { listener, parts } = self;
        let http = listener.config.clone();
        let (listener, replica) = listener.listen()?;
        Ok(Server::new(parts, http, listener, replica))
    }
}
