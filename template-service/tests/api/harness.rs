//! The service, and user-service as far as it needs that.

use actix_web::HttpResponse;
use actix_web::web::Data;
use shared::auth::keys::Jwks;
use shared::config::Variable as _;
use shared::db::DbConfig;
use shared::db::testing::urls;
use shared::registry::RegistryUrl;
use shared::service::{HttpConfig, Listener, Service, resource};
use shared::stack::StackConfig;
use shared::testing::{Api, Keys, run};
use template_service::app;
use template_service::config::Config;
use uuid::Uuid;

const ISSUER: &str = "user-service";

/// A running replica.
pub(crate) struct Replica {
    /// Without a token.
    pub(crate) api: Api,
    keys: Keys,
}

/// A replica on a new database of each kind.
pub(crate) async fn replicas() -> Vec<Replica> {
    let keys = Keys::new(ISSUER);
    let issuer = publish(keys.signing.jwks().clone());
    let mut replicas = Vec::new();
    for url in urls().await {
        let config = Config {
            http: HttpConfig::for_tests(),
            stack: StackConfig {
                registry: RegistryUrl::parse(&format!("static://{ISSUER}={}", issuer.base)).unwrap(),
                service_key: keys.service.clone(),
                advertise_url: None,
            },
            database: DbConfig::at(&url),
        };
        let (api, _) = run(app::build(config).await.unwrap());
        replicas.push(Replica { api, keys: keys.clone() });
    }
    replicas
}

/// A server with the keys of user tokens.
fn publish(jwks: Jwks) -> Api {
    let listener = Listener::bind(ISSUER, HttpConfig::for_tests()).unwrap();
    let show = async |jwks: Data<Jwks>| HttpResponse::Ok().json(jwks.get_ref());
    let service = Service::new(listener).data(jwks).configure(move |app| {
        app.service(resource("/.well-known/jwks.json").get(show));
    });
    run(service.build().unwrap()).0
}

impl Replica {
    /// A new user.
    pub(crate) fn user(&self) -> Api {
        self.api.with_token(self.keys.user_token(Uuid::now_v7(), &["customer"]))
    }

    pub(crate) fn admin(&self) -> Api {
        self.api.with_token(self.keys.user_token(Uuid::now_v7(), &["customer", "admin"]))
    }
}
