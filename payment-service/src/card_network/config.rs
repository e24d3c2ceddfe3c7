//! Environment variables of the simulated card network.

use shared::config::{ConfigError, Vars};
use shared::db::DbConfig;
use shared::service::HttpConfig;

pub const SERVICE: &str = "card-network";

#[derive(Clone)]
pub struct Config {
    pub http: HttpConfig,
    pub database: DbConfig,
}

impl Config {
    /// # Errors
    /// Names every variable that is bad.
    pub fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let config = Self {
            http: HttpConfig::from_vars(&mut vars, "3031"),
            database: DbConfig::from_vars(&mut vars, "sqlite://data/card-network.db"),
        };
        if !config.database.url.starts_with("sqlite:") {
            vars.reject("DATABASE_URL must start with sqlite:// here");
        }
        vars.finish(Some(config))
    }
}
