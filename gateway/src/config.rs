//! Environment variables. Routes and policies are in `gateway.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use shared::config::{ConfigError, Vars};
use shared::platform::PlatformConfig;
use shared::service::HttpConfig;
use url::Url;

use crate::routing::{GatewayConfig, schema};

/// The folder of `gateway.toml`. Paths of certificates are relative to it.
pub fn folder_of(config_file: &Path) -> &Path {
    config_file.parent().unwrap_or(Path::new(""))
}

/// The permitted calls and events (`calls.txt`).
pub const CALLS: &str = include_str!("../../calls.txt");

pub struct Config {
    /// The public listener.
    pub http: HttpConfig,
    /// The admin listener.
    pub admin: HttpConfig,
    pub platform: PlatformConfig,
    /// Path of `gateway.toml`.
    pub config_file: PathBuf,
    /// File for the instances of the in-memory registry; not saved if absent.
    pub state_file: Option<PathBuf>,
    /// The target of the redirect from `/` on the admin port.
    pub console: Option<Url>,
    /// `false` turns rate limiting off.
    pub rate_limits: bool,
}

impl Config {
    pub fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let http = HttpConfig::from_vars(&mut vars, "8080");
        let admin = HttpConfig {
            host: vars.or("ADMIN_HOST", "127.0.0.1", "address of the admin port: loopback or private"),
            port: vars.or("ADMIN_PORT", "9090", "port for admins and the registry"),
            // Heartbeats should move to the next gateway immediately.
            drain_grace: Duration::ZERO,
            ..http.clone()
        };
        let platform = PlatformConfig::from_vars(&mut vars, CALLS);
        let config_file: PathBuf = vars.or("CONFIG_FILE", "gateway.toml", "routes and policies");
        vars.answer(
            "CHECK_CONFIG",
            "a flag without a value: checks CONFIG_FILE, and exits with 0 or 1",
            || {
                let (config, file) = (GatewayConfig::read(&config_file)?, config_file.display());
                config.read_files(folder_of(&config_file)).map_err(|why| format!("{file}: {why}"))?;
                Ok(format!("{file}: good, with {} routes", config.routes.len()))
            },
        );
        vars.answer("CONFIG_SCHEMA", "a flag without a value: prints the JSON schema of CONFIG_FILE", || {
            Ok(schema::text().trim_end().to_owned())
        });
        let state_file = vars.optional("STATE_FILE", "where to keep the last known instances");
        let console = vars.optional("CONSOLE_URL", "where `/` on the admin port leads: the console's pages");
        let rate_limits = vars.or("RATE_LIMITS", "on", "off lifts the rate limits, for load tests");
        vars.finish(platform.map(|platform| Self {
            http,
            admin,
            platform,
            config_file,
            state_file,
            console,
            rate_limits,
        }))
    }
}
