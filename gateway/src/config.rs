//! What can be set from outside. Routes and policies are in `gateway.toml`.

use std::path::PathBuf;
use std::time::Duration;

use shared::config::{ConfigError, Vars};
use shared::service::HttpConfig;
use shared::stack::StackConfig;

/// The configuration of the gateway.
pub struct Config {
    /// How to serve the public.
    pub http: HttpConfig,
    /// How to serve admins and the registry.
    pub admin: HttpConfig,
    /// How to reach the services.
    pub stack: StackConfig,
    /// Where `gateway.toml` is.
    pub config_file: PathBuf,
    /// Where the last known instances are kept; nowhere if absent.
    pub state_file: Option<PathBuf>,
    /// Whether requests are limited.
    pub rate_limits: bool,
}

impl Config {
    /// Reads every variable.
    ///
    /// # Errors
    /// All that are missing or bad.
    pub fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let http = HttpConfig::from_vars(&mut vars, "8080");
        let admin = HttpConfig {
            host: vars.or("ADMIN_HOST", "127.0.0.1", "address of the admin port: loopback or private"),
            port: vars.or("ADMIN_PORT", "9090", "port for admins and the registry"),
            // Who registers goes to the next gateway at once.
            drain_grace: Duration::ZERO,
            ..http.clone()
        };
        let stack = StackConfig::from_vars(&mut vars);
        let config_file = vars.or("CONFIG_FILE", "gateway.toml", "routes and policies");
        let state_file = vars.optional("STATE_FILE", "where to keep the last known instances");
        let rate_limits = vars.or("RATE_LIMITS", "on", "off lifts the rate limits, for load tests");
        vars.finish(stack.map(|stack| Self { http, admin, stack, config_file, state_file, rate_limits }))
    }
}
