//! The program, and stubs of user-service and order-service.

use std::sync::{Arc, Mutex};

use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};
use shared::service::{HttpConfig, Service};
use shared::testing::{Api, Keys, run};
use storefront::app;
use storefront::config::{CALLS, Config, ORDERS, SERVICE, USERS};

/// A running replica between its stubs.
pub(crate) struct Replica {
    pub(crate) api: Api,
    pub(crate) stubs: Arc<Stubs>,
}

#[derive(Default)]
pub(crate) struct Stubs {
    pub(crate) products: Mutex<Vec<Value>>,
    /// The queries that order-service got.
    pub(crate) queries: Mutex<Vec<String>>,
    /// The bodies that user-service got, each with its path and the client's address.
    pub(crate) sessions: Mutex<Vec<(String, Value, String)>>,
    /// What user-service answers in place of tokens.
    pub(crate) refusal: Mutex<Option<(u16, Value)>>,
}

pub(crate) async fn start() -> Replica {
    let stubs = Arc::new(Stubs::default());
    let (data, name) = (Data::from(stubs.clone()), "products");
    let orders = Service::bind(name, HttpConfig::for_tests()).unwrap().configure(move |app| {
        app.app_data(data.clone()).route("/api/products", web::get().to(products));
    });
    start_with(stubs, Some(orders)).await
}

/// The same, without order-service.
pub(crate) async fn start_without_orders() -> Replica {
    start_with(Arc::default(), None).await
}

async fn start_with(stubs: Arc<Stubs>, orders: Option<Service>) -> Replica {
    let (data, name) = (Data::from(stubs.clone()), "sessions");
    let users = Service::bind(name, HttpConfig::for_tests()).unwrap().configure(move |app| {
        app.app_data(data.clone())
            .route("/api/sessions", web::post().to(session))
            .route("/api/sessions/refresh", web::post().to(session));
    });
    let (users, _) = run(users.build().unwrap());
    let mut registry = format!("static://{USERS}={}", users.base);
    if let Some(orders) = orders {
        let (orders, _) = run(orders.build().unwrap());
        registry = format!("{registry};{ORDERS}={}", orders.base);
    }
    let platform = Keys::new(USERS).platform(SERVICE, CALLS, &registry);
    let (api, _) = run(app::build(Config { http: HttpConfig::for_tests(), platform }).await.unwrap());
    Replica { api, stubs }
}

async fn products(request: HttpRequest, stubs: Data<Stubs>) -> HttpResponse {
    stubs.queries.lock().unwrap().push(request.query_string().to_owned());
    let next = if request.query_string().contains("cursor") { None } else { Some("next & more") };
    HttpResponse::Ok().json(json!({ "products": *stubs.products.lock().unwrap(), "next_cursor": next }))
}

async fn session(request: HttpRequest, body: web::Json<Value>, stubs: Data<Stubs>) -> HttpResponse {
    let address = request.headers().get("x-real-ip").map(|value| value.to_str().unwrap().to_owned());
    let call = (request.path().to_owned(), body.into_inner(), address.unwrap_or_default());
    stubs.sessions.lock().unwrap().push(call);
    if let Some((status, document)) = stubs.refusal.lock().unwrap().clone() {
        let mut response = HttpResponse::build(status.try_into().unwrap());
        return response.content_type("application/problem+json").body(document.to_string());
    }
    let status = if request.path().ends_with("refresh") { 200 } else { 201 };
    let count = stubs.sessions.lock().unwrap().len();
    HttpResponse::build(status.try_into().unwrap()).json(json!({
        "access_token": "access", "token_type": "Bearer", "expires_in": 300,
        "refresh_token": format!("refresh-{count}"),
    }))
}

/// A product as order-service shows it.
pub(crate) fn product(name: &str, available: i64) -> Value {
    json!({
        "id": "01890000-0000-7000-8000-000000000000", "sku": "TEA-1", "name": name, "description": "Loose leaves.",
        "price": { "amount": 125_000, "currency": "EUR" }, "available": available, "version": 1,
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
    })
}

impl Replica {
    /// A client that sends requests as a page of this origin does.
    pub(crate) fn page(&self) -> Api {
        self.api.with("sec-fetch-site", "same-origin")
    }

    pub(crate) fn calls_of_sessions(&self) -> usize {
        self.stubs.sessions.lock().unwrap().len()
    }
}
