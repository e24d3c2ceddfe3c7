//! Every variable.

use shared::config::{ConfigError, Vars};
use shared::platform::PlatformConfig;
use shared::service::HttpConfig;

/// The name of this program.
pub const SERVICE: &str = env!("CARGO_PKG_NAME");
/// The services that it calls.
pub const USERS: &str = "user-service";
pub const ORDERS: &str = "order-service";
/// The permitted calls and events (`calls.txt`).
pub const CALLS: &str = include_str!("../../calls.txt");

pub struct Config {
    pub http: HttpConfig,
    pub platform: PlatformConfig,
}

impl Config {
    /// Reads every variable; the error names all that are missing or bad.
    pub fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let http = HttpConfig::from_vars(&mut vars, "3041");
        let platform = PlatformConfig::from_vars(&mut vars, CALLS);
        vars.finish(platform.map(|platform| Self { http, platform }))
    }
}
