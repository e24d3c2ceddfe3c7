//! The admin port: routes and registry. Reading needs no token. Switching a strategy, or putting a replica into
//! maintenance, needs an admin's token. Registering needs a service token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::web::{Data, Path};
use actix_web::{HttpResponse, web};
use arc_swap::ArcSwap;
use serde_json::json;
use shared::auth::{Admin, ServiceCaller};
use shared::balancer::{Maintenance, Strategy};
use shared::body::{Body, Fields, FromBody, Invalid};
use shared::problem::Problem;
use shared::registry::{Instance, is_within};
use shared::service::resource;
use url::Url;

use crate::policies::versions::Split;
use crate::registrations::{Registrations, is_name};
use crate::routing::Table;

shared::codes! {
    409 REGISTERED_ELSEWHERE = "registered_elsewhere";
}

/// The state that the admin port shows and changes.
pub struct Console {
    /// The pages of the console program.
    pub pages: Option<Url>,
    pub table: Arc<ArcSwap<Table>>,
    pub registrations: Arc<Registrations>,
    /// The error of the last reload, if it failed.
    pub refused: Mutex<Option<String>>,
    /// The same for certificates whose files have changed.
    pub refused_certificates: Mutex<Option<String>>,
}

struct Switch(Strategy);

/// Seconds; without them until an admin ends it.
struct MaintenanceFor(Option<u64>);

/// The longest maintenance with an end, in seconds.
const LONGEST_MAINTENANCE: u64 = 3600;

impl FromBody for MaintenanceFor {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        match fields.optional("seconds")? {
            Some(seconds) if !(1..=LONGEST_MAINTENANCE).contains(&seconds) => {
                fields.reject("seconds", format!("must be a number from 1 to {LONGEST_MAINTENANCE}"))
            }
            seconds => Ok(Self(seconds)),
        }
    }
}

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
    app.service(resource("/").get(start))
        .service(resource("/routes").get(routes))
        .service(resource("/routes/{id}/strategy").put(switch))
        .service(resource("/routes/{id}/canary").put(set_canary))
        .service(resource("/config").get(config))
        .service(resource("/registry/services").get(services))
        .service(resource("/registry/services/{name}").get(instances))
        .service(resource("/registry/services/{name}/instances/{id}").put(register).delete(deregister))
        .service(
            resource("/registry/services/{name}/instances/{id}/maintenance")
                .put(set_maintenance)
                .delete(end_maintenance),
        );
}

/// Leads to the console, if there is one.
async fn start(console: Data<Console>) -> Result<HttpResponse, Problem> {
    let url = console.pages.as_ref().ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::TemporaryRedirect().insert_header((LOCATION, url.as_str())).finish())
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
                "versions": route.split.as_ref().map(|split| described(split)),
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
    log::info!(route = *id, strategy:?, person = admin.0.id.to_string(); "a route's strategy was switched");
    Ok(HttpResponse::Ok().json(json!({ "id": *id, "strategy": strategy })))
}

/// The share of each version of a service, and the state of its canary.
fn described(split: &Split) -> serde_json::Value {
    let canary = split.seen().zip(split.canary_version());
    let canary = canary.map(|(state, version)| json!({ "version": version, "state": state.as_str() }));
    json!({ "shares": split.shares(), "canary": canary })
}

struct Share(u32);

impl FromBody for Share {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        fields.required("percent").map(Self)
    }
}

/// Gives the canary of a route a share, also after it was rolled back.
async fn set_canary(
    admin: Admin,
    id: Path<String>,
    body: Body<Share>,
    console: Data<Console>,
) -> Result<HttpResponse, Problem> {
    let percent = body.value.0;
    if percent > 100 {
        let problem = Problem::of_status(StatusCode::UNPROCESSABLE_ENTITY);
        return Err(problem.field("percent", "must be 0 to 100"));
    }
    let table = console.table.load();
    let split = table.named(&id).and_then(|route| route.split.as_ref()).ok_or_else(Problem::not_found)?;
    if !split.set(percent) {
        return Err(Problem::not_found());
    }
    log::info!(route = *id, percent, person = admin.0.id.to_string(); "a canary's share was set");
    Ok(HttpResponse::Ok().json(json!({ "id": *id, "versions": described(split) })))
}

async fn config(console: Data<Console>) -> HttpResponse {
    let table = console.table.load();
    let refused = |why: &Mutex<Option<String>>| why.lock().unwrap_or_else(PoisonError::into_inner).clone();
    HttpResponse::Ok().json(json!({
        "config": table.config,
        "hash": table.hash,
        "last_refused": refused(&console.refused),
        "refused_certificates": refused(&console.refused_certificates),
    }))
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
    if !is_within(&url, &console.table.load().config.instance_networks) {
        let problem = Problem::of_status(StatusCode::UNPROCESSABLE_ENTITY);
        return Err(problem
            .field("url", "must be http://host:port, or https://host:port, in a network of this stack"));
    }
    let instance = Instance { metadata, ..Instance::new(&id, &url) };
    log::debug!(peer_service = service, instance = id; "registered");
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

/// Puts a replica into maintenance: this gateway sends it no requests, unless no other replica is left. The services, which
/// balance their calls themselves, go on.
async fn set_maintenance(
    admin: Admin,
    path: Path<(String, String)>,
    body: Body<MaintenanceFor>,
    console: Data<Console>,
) -> Result<HttpResponse, Problem> {
    let now = Instant::now();
    let maintenance = body
        .value
        .0
        .map_or(Maintenance::Indefinite, |seconds| Maintenance::Until(now + Duration::from_secs(seconds)));
    change_maintenance(&admin, &path, Some(maintenance), &console, now)
}

async fn end_maintenance(
    admin: Admin,
    path: Path<(String, String)>,
    console: Data<Console>,
) -> Result<HttpResponse, Problem> {
    change_maintenance(&admin, &path, None, &console, Instant::now())
}

fn change_maintenance(
    admin: &Admin,
    (service, id): &(String, String),
    maintenance: Option<Maintenance>,
    console: &Console,
    now: Instant,
) -> Result<HttpResponse, Problem> {
    if !console.registrations.set_maintenance(service, id, maintenance, now) {
        return Err(Problem::not_found());
    }
    log::info!(peer_service = service, instance = id, maintenance:?, person = admin.0.id.to_string(); "a replica's maintenance was changed");
    Ok(HttpResponse::NoContent().finish())
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

/// A service may register only its own replicas. Otherwise, it could get the requests of another service, or publish
/// keys for user tokens.
fn must_be(caller: &ServiceCaller, service: &str) -> Result<(), Problem> {
    if caller.service == service {
        return Ok(());
    }
    log::warn!(caller = caller.service, peer_service = service; "a registration of another service is refused");
    Err(Problem::of_status(StatusCode::FORBIDDEN))
}
