//! Every variable.

use std::time::Duration;

use shared::auth::{Reread, SealKey, Secret, SigningKeys};
use shared::config::{ConfigError, Vars};
use shared::db::DbConfig;
use shared::platform::PlatformConfig;
use shared::service::HttpConfig;

/// The name of this service.
pub const SERVICE: &str = env!("CARGO_PKG_NAME");
/// The permitted calls and events (`calls.txt`).
pub const CALLS: &str = include_str!("../../calls.txt");

pub struct Config {
    pub http: HttpConfig,
    pub platform: PlatformConfig,
    pub database: DbConfig,
    /// The first signs access tokens; all are published.
    pub signing_keys: Reread<SigningKeys>,
    /// Seals bodies that hold a password.
    pub seal_key: SealKey,
    pub access_token_ttl: Duration,
    /// Registered at the first start.
    pub admin: Option<Admin>,
}

pub struct Admin {
    pub email: String,
    pub password: Secret,
}

impl Config {
    /// Reads every variable; the error names all that are missing or bad.
    pub fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let email = vars.optional("ADMIN_EMAIL", "address of the first admin");
        let password: Option<String> = vars.optional("ADMIN_PASSWORD", "password of the first admin");
        if email.is_some() != password.is_some() {
            vars.reject("ADMIN_EMAIL and ADMIN_PASSWORD go together");
        }
        let admin =
            email.zip(password).map(|(email, password)| Admin { email, password: Secret::new(password) });
        let http = HttpConfig::from_vars(&mut vars, "3001");
        let platform = PlatformConfig::from_vars(&mut vars, CALLS);
        let database = DbConfig::from_vars(&mut vars, "sqlite://data/users.db");
        let keys = vars.required("SIGNING_KEY_FILE", "file with the Ed25519 keys (PEM) of user tokens");
        let seal_key =
            vars.required("SEAL_KEY_FILE", "file with a random key (base64), for digests of passwords");
        let access_token_ttl = vars.or("ACCESS_TOKEN_TTL", "300s", "how long an access token is good");
        let required = platform.zip(keys).zip(seal_key);
        vars.finish(required.map(|((platform, signing_keys), seal_key)| Self {
            http,
            platform,
            database,
            signing_keys,
            seal_key,
            access_token_ttl,
            admin,
        }))
    }
}
