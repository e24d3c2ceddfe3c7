//! Every variable of this service.

use shared::config::{ConfigError, Vars};
use shared::service::HttpConfig;
use shared::stack::StackConfig;

/// How this service runs.
pub struct Config {
    /// How it serves HTTP.
    pub http: HttpConfig,
    /// How it reaches the others.
    pub stack: StackConfig,
    /// Its database.
    pub database_url: String,
    /// Whether to offer a few products, unless they are there.
    pub seed_products: bool,
}

impl Config {
    /// Reads the variables.
    ///
    /// # Errors
    /// Every variable that is missing or malformed.
    pub fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let config = Self {
            http: HttpConfig::from_vars(&mut vars, "3011"),
            stack: StackConfig::from_vars(&mut vars),
            database_url: vars.or(
                "DATABASE_URL",
                "sqlite://data/orders.db",
                "sqlite:// or postgres:// URL of the database",
            ),
            seed_products: vars.or("SEED_PRODUCTS", "off", "on: offer a few products from the start"),
        };
        vars.finish(config)
    }
}
