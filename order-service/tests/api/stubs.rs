//! Stubs of the neighbours: user-service, which answers requests, and payment-service, which receives
//! messages.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use shared::auth::SigningKeys;
use shared::testing::publish_keys;
use uuid::Uuid;

#[derive(Default)]
pub(crate) struct Stubs {
    /// Everyone else is `active`.
    pub(crate) user_statuses: Mutex<HashMap<Uuid, &'static str>>,
    pub(crate) user_service_is_down: AtomicBool,
    /// The messages that payment-service received.
    pub(crate) received: Mutex<Vec<Value>>,
}

/// Starts both stubs; returns the addresses of user-service and payment-service.
pub(crate) fn start(stubs: &Arc<Stubs>, keys: &SigningKeys) -> (SocketAddr, SocketAddr) {
    let data = web::Data::from(stubs.clone());
    let keys = keys.clone();
    let users = serve(move |app| {
        publish_keys(app, &keys);
        app.app_data(data.clone()).route("/api/users/{id}", web::get().to(show_user));
    });
    let data = web::Data::from(stubs.clone());
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

async fn show_user(id: web::Path<Uuid>, stubs: web::Data<Stubs>) -> HttpResponse {
    if stubs.user_service_is_down.load(Ordering::Relaxed) {
        return HttpResponse::ServiceUnavailable().finish();
    }
    match stubs.user_statuses.lock().unwrap().get(&id).copied().unwrap_or("active") {
        "unknown" => HttpResponse::NotFound().finish(),
        status => HttpResponse::Ok().json(json!({ "id": *id, "status": status, "name": "Somebody" })),
    }
}

/// Takes no batches.
async fn receive(event: web::Json<Value>, stubs: web::Data<Stubs>) -> HttpResponse {
    if event.is_array() {
        return HttpResponse::UnsupportedMediaType().finish();
    }
    stubs.received.lock().unwrap().push(event.into_inner());
    HttpResponse::NoContent().finish()
}
