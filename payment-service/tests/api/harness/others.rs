//! A stub for order-service, which gets the events, and for user-service, which publishes the keys of user
//! tokens.

use std::sync::{Arc, Mutex};

use actix_web::{HttpResponse, web};
use payment_service::config::{CALLS, ORDERS, USERS};
use serde_json::Value;
use shared::auth::{Authenticator, KeySet, ServiceCaller};
use shared::service::{HttpConfig, Service, resource};
use shared::testing::{Keys, publish_keys, run};
use uuid::Uuid;

use super::eventually;

/// The other services, and the keys of the stack.
#[derive(Clone)]
pub(crate) struct Others {
    pub(crate) url: String,
    pub(crate) keys: Keys,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Others {
    pub(crate) async fn start() -> Self {
        let keys = Keys::new(USERS);
        let events: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (inbox, signing) = (web::Data::from(events.clone()), keys.signing.clone());
        let platform = keys.platform(ORDERS, CALLS, "static://");
        let users = KeySet::empty(USERS);
        let authenticator = Authenticator::new(ORDERS, platform.service_keys, platform.calls, users);
        let server = Service::bind(ORDERS, HttpConfig::for_tests())
            .unwrap()
            .authenticate(authenticator)
            .configure(move |app| {
                publish_keys(app, &signing);
                app.app_data(inbox.clone()).service(resource("/messages").post(receive));
            })
            .build()
            .unwrap();
        let (api, _) = run(server);
        Self { url: api.base, keys, events }
    }

    /// Type and data of the events that the order got, in the order of arrival.
    pub(crate) fn events(&self, order_id: Uuid) -> Vec<(String, Value)> {
        let events = self.events.lock().unwrap();
        let mine = events.iter().filter(|event| event["subject"] == order_id.to_string());
        mine.map(|event| (event["type"].as_str().unwrap().to_owned(), event["data"].clone())).collect()
    }

    /// Waits for the event of that type.
    pub(crate) async fn event(&self, order_id: Uuid, kind: &str) -> Value {
        eventually(&format!("{kind} for {order_id}"), async || {
            let events = self.events.lock().unwrap();
            let mut mine = events.iter().filter(|event| event["subject"] == order_id.to_string());
            mine.find(|event| event["type"] == kind).cloned()
        })
        .await
    }
}

/// Takes no batches.
async fn receive(
    _: ServiceCaller,
    event: web::Json<Value>,
    events: web::Data<Mutex<Vec<Value>>>,
) -> HttpResponse {
    if event.is_array() {
        return HttpResponse::UnsupportedMediaType().finish();
    }
    let mut events = events.lock().unwrap();
    // Delivery is at least once: a repeated event is no other event.
    if !events.iter().any(|seen| seen["id"] == event["id"]) {
        events.push(event.into_inner());
    }
    HttpResponse::NoContent().finish()
}
