//! The service, and user-service as far as it needs that.

use shared::db::DbConfig;
use shared::db::testing::urls;
use shared::service::{HttpConfig, Service};
use shared::testing::{Api, Keys, publish_keys, run};
use template_service::app;
use template_service::config::{CALLS, Config, SERVICE, USERS};
use uuid::Uuid;

/// A running replica.
pub(crate) struct Replica {
    /// A client without a token.
    pub(crate) api: Api,
    keys: Keys,
}

/// A replica on a new database of each kind.
pub(crate) async fn replicas() -> Vec<Replica> {
    let keys = Keys::new(USERS);
    let (signing, users) = (keys.signing.clone(), Service::bind(USERS, HttpConfig::for_tests()).unwrap());
    let users = users.configure(move |app| publish_keys(app, &signing)).build().unwrap();
    let (users, _) = run(users);
    let mut replicas = Vec::new();
    for url in urls().await {
        let config = Config {
            http: HttpConfig::for_tests(),
            platform: keys.platform(SERVICE, CALLS, &format!("static://{USERS}={}", users.base)),
            database: DbConfig::at(&url),
        };
        let (api, _) = run(app::build(config).await.unwrap());
        replicas.push(Replica { api, keys: keys.clone() });
    }
    replicas
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
