//! The service with an admin, and a verb for each thing that users do.

use std::time::Duration;

use actix_web::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use shared::auth::{Reread, SealKey, Secret, SigningKeys, UserClaims};
use shared::db::DbConfig;
use shared::db::testing::sqlite_url;
use shared::service::HttpConfig;
use shared::testing::{Api, Keys, Reply, pem, run};
use user_service::app;
use user_service::config::{Admin, CALLS, Config, SERVICE};

pub(crate) const PASSWORD: &str = "a long enough one";
const ADMIN: &str = "admin@example.com";

/// A running service in a new SQLite database.
pub(crate) struct Service {
    /// A client without a token.
    pub(crate) api: Api,
    pub(crate) keys: Keys,
    signing: SigningKeys,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let keys = Keys::new(SERVICE);
        let two_keys = Secret::new([pem([1; 32]), pem([2; 32])].concat());
        let signing = SigningKeys::from_pem(&two_keys).unwrap();
        let config = Config {
            http: HttpConfig::for_tests(),
            platform: keys.platform(SERVICE, CALLS, "static://"),
            database: DbConfig::at(&sqlite_url()),
            signing_keys: Reread::fixed(signing.clone()),
            seal_key: SealKey::from_base64(&Secret::new("A".repeat(44))).unwrap(),
            access_token_ttl: Duration::from_secs(300),
            admin: Some(Admin { email: ADMIN.to_owned(), password: Secret::new(PASSWORD) }),
        };
        let (api, _) = run(app::build(config).await.unwrap());
        Self { api, keys, signing }
    }

    /// Registers without an idempotency key, which is optional here.
    pub(crate) async fn register(&self, email: &str) -> Reply {
        let body = json!({ "email": email, "name": "Ann", "password": PASSWORD });
        self.api.send(Method::POST, "/api/users", Some(&body)).await
    }

    pub(crate) async fn log_in(&self, email: &str, password: &str) -> Reply {
        self.api.post("/api/sessions", json!({ "email": email, "password": password })).await
    }

    pub(crate) async fn refresh(&self, token: &str) -> Reply {
        self.api.post("/api/sessions/refresh", json!({ "refresh_token": token })).await
    }

    /// The service as a newly registered user sees it, and that user's refresh token.
    pub(crate) async fn user(&self, email: &str) -> (Api, String) {
        self.register(email).await.expect(201);
        let (access, refresh) = tokens(&self.log_in(email, PASSWORD).await.expect(201));
        (self.api.with_token(access), refresh)
    }

    pub(crate) async fn admin(&self) -> Api {
        self.api.with_token(self.admin_session().await.0)
    }

    /// The access token and the refresh token of an admin.
    pub(crate) async fn admin_session(&self) -> (String, String) {
        tokens(&self.log_in(ADMIN, PASSWORD).await.expect(201))
    }

    /// The token that the session of `token` would have if its login was six minutes earlier.
    pub(crate) fn six_minutes_after_the_login(&self, token: &str) -> String {
        let mut claims = claims(token);
        claims.auth_time -= 360;
        self.signing.sign(&claims).unwrap()
    }
}

/// The access token and the refresh token.
pub(crate) fn tokens(body: &Value) -> (String, String) {
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

/// The claims of a token, unverified.
pub(crate) fn claims(token: &str) -> UserClaims {
    let payload = token.split('.').nth(1).unwrap();
    let json = URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice(&json).unwrap()
}
