//! Every variable.

use shared::config::{ConfigError, Vars};
use shared::db::DbConfig;
use shared::platform::PlatformConfig;
use shared::service::HttpConfig;

/// The name of this service.
pub const SERVICE: &str = env!("CARGO_PKG_NAME");
/// Issues user tokens.
pub const USERS: &str = "user-service";
/// The permitted calls and events (`calls.txt`).
pub const CALLS: &str = include_str!("../../calls.txt");

pub struct Config {
    pub http: HttpConfig,
    pub platform: PlatformConfig,
    pub database: DbConfig,
}

impl Config {
    /// Reads every variable; the error names all that are missing or bad.
    pub fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let http = HttpConfig::from_vars(&mut vars, "3999");
        let platform = PlatformConfig::from_vars(&mut vars, CALLS);
        let database = DbConfig::from_vars(&mut vars, "sqlite://data/things.db");
        vars.finish(platform.map(|platform| Self { http, platform, database }))
    }
}
