//! The variables of the card network.

use shared::config::{ConfigError, Vars};
use shared::db::DbConfig;
use shared::service::HttpConfig;

/// How the card network is set up.
#[derive(Clone)]
pub struct Config {
    /// How it serves HTTP.
    pub http: HttpConfig,
    /// Its state file.
    pub database: DbConfig,
}

impl Config {
    /// Reads the variables.
    ///
    /// # Errors
    /// Every variable that is bad.
    pub fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let config = Self {
            http: HttpConfig::from_vars(&mut vars, "3031"),
            database: DbConfig::from_vars(&mut vars, "sqlite://data/card-network.db"),
        };
        if !config.database.url.starts_with("sqlite:") {
            vars.reject("DATABASE_URL must start with sqlite:// here");
        }
        vars.finish(config)
    }
}
