//! The services around the one under test, played by one stub: it takes in the events that the order
//! service would, and publishes the keys of user tokens.

use std::sync::{Arc, Mutex};

use actix_web::{HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, spki::der::pem::LineEnding};
use payment_service::messages::ORDERS;
use serde_json::Value;
use shared::auth::{
    Authenticator, KeySet, Secret, ServiceCaller, ServiceKey, SigningKeys, USER_TOKEN_AUDIENCE, UserClaims,
};
use shared::service::{HttpConfig, Service, resource};
use uuid::Uuid;

use super::eventually;

/// The other services, and the secrets that they share.
#[derive(Clone)]
pub(crate) struct Others {
    pub(crate) url: String,
    pub(crate) service_key_text: String,
    pub(crate) service_key: ServiceKey,
    signing: SigningKeys,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Others {
    pub(crate) async fn start() -> Self {
        let service_key_text = STANDARD.encode(rand::random::<[u8; 32]>());
        let service_key = ServiceKey::from_base64(&Secret::new(service_key_text.clone())).unwrap();
        let key = ed25519_dalek::SigningKey::from_bytes(&rand::random());
        let pem = key.to_pkcs8_pem(LineEnding::LF).unwrap();
        let signing = SigningKeys::from_pem(&Secret::new(pem.as_str())).unwrap();
        let events: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (inbox, jwks) = (web::Data::from(events.clone()), web::Data::new(signing.jwks().clone()));
        let server = Service::bind(ORDERS, HttpConfig::for_tests())
            .unwrap()
            .authenticate(Authenticator::new(ORDERS, service_key.clone(), KeySet::empty("user-service")))
            .configure(move |app| {
                app.app_data(inbox.clone()).app_data(jwks.clone());
                app.service(resource("/messages").post(receive))
                    .service(resource("/.well-known/jwks.json").get(keys));
            })
            .build()
            .unwrap();
        let url = format!("http://{}", server.address());
        actix_web::rt::spawn(server.run());
        Self { url, service_key_text, service_key, signing, events }
    }

    /// A token as user-service would give it to a person.
    pub(crate) fn token(&self, person: Uuid, roles: &[&str]) -> String {
        let now = u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap();
        let claims = UserClaims {
            iss: "user-service".to_owned(),
            aud: USER_TOKEN_AUDIENCE.to_owned(),
            sub: person,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            sid: Uuid::now_v7(),
            iat: now,
            exp: now + 300,
        };
        self.signing.sign(&claims).unwrap()
    }

    /// The types and data of what the order was told, in the order of arrival.
    pub(crate) fn told(&self, order_id: Uuid) -> Vec<(String, Value)> {
        let events = self.events.lock().unwrap();
        let mine = events.iter().filter(|event| event["subject"] == order_id.to_string());
        mine.map(|event| (event["type"].as_str().unwrap().to_owned(), event["data"].clone())).collect()
    }

    /// The whole event of that type, when the order has been told.
    pub(crate) async fn event(&self, order_id: Uuid, kind: &str) -> Value {
        eventually(&format!("{kind} for {order_id}"), async || {
            let events = self.events.lock().unwrap();
            let mut mine = events.iter().filter(|event| event["subject"] == order_id.to_string());
            mine.find(|event| event["type"] == kind).cloned()
        })
        .await
    }
}

async fn receive(
    _: ServiceCaller,
    event: web::Json<Value>,
    events: web::Data<Mutex<Vec<Value>>>,
) -> HttpResponse {
    let mut events = events.lock().unwrap();
    // At least once: what comes again is not another event.
    if !events.iter().any(|seen| seen["id"] == event["id"]) {
        events.push(event.into_inner());
    }
    HttpResponse::NoContent().finish()
}

async fn keys(jwks: web::Data<shared::auth::keys::Jwks>) -> HttpResponse {
    HttpResponse::Ok().json(jwks.get_ref())
}
