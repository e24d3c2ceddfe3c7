//! `/health`, `/health/live`, `/health/ready`, `/metrics` and `/openapi.json`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::future::{LocalBoxFuture, join_all};
use serde::Serialize;

use super::Replica;
use super::drain::Drain;
use super::resource::resource;
use crate::metrics::Readings;
use crate::problem::Problem;

/// A check that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Name of the check that is `down` during a drain. The gateway tells a drain from a failure by it.
pub const DRAIN: &str = "drain";

/// Health check of one dependency.
pub struct Check {
    name: &'static str,
    critical: bool,
    run: Box<dyn Fn() -> LocalBoxFuture<'static, Result<(), String>> + Send + Sync>,
}

impl Check {
    pub(super) fn new(
        name: &'static str,
        critical: bool,
        run: impl Fn() -> LocalBoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
    ) -> Self {
        Self { name, critical, run: Box::new(run) }
    }

    async fn passes(&self) -> bool {
        let result = tokio::time::timeout(TIMEOUT, (self.run)()).await;
        match result.unwrap_or_else(|_| Err("it takes too long".to_owned())) {
            Ok(()) => true,
            Err(why) => {
                log::warn!(check = self.name, error = why; "a health check fails");
                false
            }
        }
    }
}

pub(super) struct Health {
    pub(super) replica: Replica,
    pub(super) started: Instant,
    pub(super) checks: Vec<Check>,
    pub(super) sources: Vec<Source>,
    /// The OpenAPI document.
    pub(super) openapi: Option<String>,
    pub(super) drain: Drain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    Degraded,
    Down,
}

#[derive(Serialize)]
struct Report<'a> {
    status: Status,
    service: &'a str,
    version: &'a str,
    instance: &'a str,
    uptime: u64,
    checks: BTreeMap<&'a str, Status>,
}

impl Health {
    fn response(&self, checks: BTreeMap<&str, Status>) -> HttpResponse {
        let any = |wanted| checks.values().any(|status| *status == wanted);
        let worst = [Status::Down, Status::Degraded].into_iter().find(|status| any(*status));
        let worst = worst.unwrap_or(Status::Ok);
        let code = match worst {
            Status::Ok | Status::Degraded => StatusCode::OK,
            Status::Down => StatusCode::SERVICE_UNAVAILABLE,
        };
        HttpResponse::build(code).json(Report {
            status: worst,
            service: self.replica.service,
            version: env!("CARGO_PKG_VERSION"),
            instance: &self.replica.instance,
            uptime: self.started.elapsed().as_secs(),
            checks,
        })
    }
}

async fn ready(health: web::Data<Health>) -> HttpResponse {
    let results = join_all(health.checks.iter().map(|check| async {
        let status = match (check.passes().await, check.critical) {
            (true, _) => Status::Ok,
            (false, true) => Status::Down,
            (false, false) => Status::Degraded,
        };
        (check.name, status)
    }));
    let mut checks: BTreeMap<_, _> = results.await.into_iter().collect();
    if health.drain.has_begun() {
        checks.insert(DRAIN, Status::Down);
    }
    health.response(checks)
}

/// Checks no dependency: restarting this service would not repair one.
async fn live(health: web::Data<Health>) -> HttpResponse {
    health.response(BTreeMap::new())
}

async fn openapi(health: web::Data<Health>) -> Result<HttpResponse, Problem> {
    let document = health.openapi.clone().ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(document))
}

/// Adds gauges at each scrape.
pub(super) type Source = Box<dyn Fn(&mut Readings) + Send + Sync>;

async fn metrics(health: web::Data<Health>) -> HttpResponse {
    let mut readings = Readings::default();
    health.sources.iter().for_each(|source| source(&mut readings));
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(crate::metrics::text(&readings))
}

/// An edge service does not publish its metrics.
pub(super) fn configure(app: &mut web::ServiceConfig, health: &web::Data<Health>, edge: bool) {
    // In a scope, because each path here is compared with that of every request.
    let reports = web::scope("/health")
        .service(resource("").get(ready))
        .service(resource("/ready").get(ready))
        .service(resource("/live").get(live));
    app.app_data(health.clone()).service(reports);
    if !edge {
        app.service(resource("/metrics").get(metrics));
    }
    if health.openapi.is_some() {
        app.service(resource("/openapi.json").get(openapi));
    }
}
