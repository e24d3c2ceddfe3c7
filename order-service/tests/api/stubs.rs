//! The two neighbours: user-service, which answers, and payment-service, which receives.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use shared::auth::SigningKeys;
use uuid::Uuid;

/// What the stubs know and have seen.
#[derive(Default)]
pub(crate) struct Neighbours {
    /// Statuses of people who are not simply active.
    pub(crate) people: Mutex<HashMap<Uuid, &'static str>>,
    /// Whether user-service is away.
    pub(crate) users_are_away: AtomicBool,
    /// The messages that payment-service received.
    pub(crate) received: Mutex<Vec<Value>>,
}

/// Starts both; answers their addresses.
pub(crate) fn start(neighbours: &Arc<Neighbours>, keys: &SigningKeys) -> (SocketAddr, SocketAddr) {
    let data = web::Data::from(neighbours.clone());
    let jwks = web::Data::new(keys.jwks().clone());
    let users = serve(move |app| {
        app.app_data(data.clone())
            .app_data(jwks.clone())
            .route("/.well-known/jwks.json", web::get().to(published))
            .route("/api/users/{id}", web::get().to(person));
    });
    let data = web::Data::from(neighbours.clone());
    let payments = serve(move |app| {
        app.app_data(data.clone()).route("/messages", web::post().to(receive));
    });
    (users, payments)
}

fn serve(configure: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static) -> SocketAddr {
    let server = HttpServer::new(move || App::new().configure(configure.clone()));
    let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let address = server.addrs()[0];
    actix_web::rt::spawn(server.run());
    address
}

async fn published(jwks: web::Data<shared::auth::keys::Jwks>) -> HttpResponse {
    HttpResponse::Ok().json(jwks.get_ref())
}

async fn person(id: web::Path<Uuid>, neighbours: web::Data<Neighbours>) -> HttpResponse {
    if neighbours.users_are_away.load(Ordering::Relaxed) {
        return HttpResponse::ServiceUnavailable().finish();
    }
    match neighbours.people.lock().unwrap().get(&id).copied().unwrap_or("active") {
        "unknown" => HttpResponse::NotFound().finish(),
        status => HttpResponse::Ok().json(json!({ "id": *id, "status": status, "name": "Somebody" })),
    }
}

async fn receive(event: web::Json<Value>, neighbours: web::Data<Neighbours>) -> HttpResponse {
    neighbours.received.lock().unwrap().push(event.into_inner());
    HttpResponse::NoContent().finish()
}
