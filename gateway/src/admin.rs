//! The admin port: dashboard, routes and registry. Reading needs no token, switching a strategy needs an
//! admin's token, and registering needs a service token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use actix_web::{HttpResponse, web};
use arc_swap::ArcSwap;
use serde_json::json;
use shared::auth::{Admin, ServiceCaller};
use shared::balancer::Strategy;
use shared::body::{Body, Fields, FromBody, Invalid};
use shared::problem::Problem;
use shared::registry::{Instance, is_within};
use shared::service::resource;

use crate::registrations::Registrations;
use crate::routing::Table;

shared::codes! {
    409 REGISTERED_ELSEWHERE = "registered_elsewhere";
}

/// The state that the admin port shows and changes.
pub struct Console {
    pub table: Arc<ArcSwap<Table>>,
    pub registrations: Arc<Registrations>,
    /// The error of the last reload, if it failed.
    pub refused: Mutex<Option<String>>,
}

struct Switch(Strategy);

impl FromBody for Switch {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        fields.required("strategy").map(Self)
    }
}

struct Registration {
    url: String,
    metadata: std::collections::BTreeMap<String, String>,
}

impl FromBody for Registration {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        let (url, metadata) = (fields.required("url"), fields.optional("metadata"));
        Ok(Self { url: url?, metadata: metadata?.unwrap_or_default() })
    }
}

pub fn configure(app: &mut web::ServiceConfig) {
    app.service(resource("/").get(dashboard))
        .service(resource("/routes").get(routes))
        .service(resource("/routes/{id}/strategy").put(switch))
        .service(resource("/config").get(config))
        .service(resource("/registry/services").get(services))
        .service(resource("/registry/services/{name}").get(instances))
        .service(resource("/registry/services/{name}/instances/{id}").put(register).delete(deregister));
}

async fn dashboard() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((
            "content-security-policy",
            "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
        ))
        .body(include_str!("admin/dashboard.html"))
}

async fn routes(console: Data<Console>) -> HttpResponse {
    let table = console.table.load();
    let listed = table.routes.iter().filter(|route| route.entry.listed);
    let routes: Vec<_> = listed
        .map(|route| {
            let entry = &route.entry;
            json!({
                "id": entry.id,
                "prefix": entry.prefix,
                "service": entry.service,
                "strategy": route.picker.strategy(),
            })
        })
        .collect();
    HttpResponse::Ok().json(json!({ "routes": routes }))
}

async fn switch(
    admin: Admin,
    id: Path<String>,
    body: Body<Switch>,
    console: Data<Console>,
) -> Result<HttpResponse, Problem> {
    let table = console.table.load();
    let route = table.named(&id).ok_or_else(Problem::not_found)?;
    let strategy = body.value.0;
    route.picker.switch(strategy);
    log::info!(route = *id, strategy:?, admin = admin.0.id.to_string(); "a route's strategy was switched");
    Ok(HttpResponse::Ok().json(json!({ "id": *id, "strategy": strategy })))
}

async fn config(console: Data<Console>) -> HttpResponse {
    let table = console.table.load();
    let refused = console.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
    HttpResponse::Ok().json(json!({ "config": table.file, "hash": table.hash, "last_refused": refused }))
}

async fn services(console: Data<Console>) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "services": console.registrations.services(Instant::now()) }))
}

async fn instances(name: Path<String>, console: Data<Console>) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "instances": console.registrations.instances(&name, Instant::now()) }))
}

async fn register(
    caller: ServiceCaller,
    path: Path<(String, String)>,
    body: Body<Registration>,
    console: Data<Console>,
) -> Result<HttpResponse, Problem> {
    require_authoritative(&console)?;
    let (service, id) = path.into_inner();
    must_be(&caller, &service)?;
    let Registration { url, metadata } = body.value;
    if !is_name(&service) || !is_name(&id) {
        return Err(Problem::not_found());
    }
    if !is_within(&url, &console.table.load().file.instance_networks) {
        let problem = Problem::of_status(StatusCode::UNPROCESSABLE_ENTITY);
        return Err(problem
            .field("url", "must be http://host:port, or https://host:port, in a network of this stack"));
    }
    let instance = Instance { metadata, ..Instance::new(&id, &url) };
    log::debug!(service, id; "registered");
    let lease = console.registrations.register(&service, instance, Instant::now());
    Ok(HttpResponse::Ok().json(json!({ "lease_s": lease.as_secs() })))
}

async fn deregister(
    caller: ServiceCaller,
    path: Path<(String, String)>,
    console: Data<Console>,
) -> Result<HttpResponse, Problem> {
    require_authoritative(&console)?;
    let (service, id) = path.into_inner();
    must_be(&caller, &service)?;
    match console.registrations.deregister(&service, &id, Instant::now()) {
        true => Ok(HttpResponse::NoContent().finish()),
        false => Err(Problem::not_found()),
    }
}

fn require_authoritative(console: &Console) -> Result<(), Problem> {
    match console.registrations.is_authoritative() {
        true => Ok(()),
        false => Err(Problem::new(
            REGISTERED_ELSEWHERE,
            "This gateway follows another registry (REGISTRY_URL): register there.",
        )),
    }
}

/// A service registers its own replicas only: who could register another service would get its requests, and
/// could publish keys of user tokens.
fn must_be(caller: &ServiceCaller, service: &str) -> Result<(), Problem> {
    if caller.service == service {
        return Ok(());
    }
    log::warn!(caller = caller.service, service; "a registration of another service is refused");
    Err(Problem::of_status(StatusCode::FORBIDDEN))
}

fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
