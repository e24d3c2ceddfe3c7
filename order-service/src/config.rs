//! Every variable of this service.

use shared::config::{ConfigError, Vars};
use shared::db::DbConfig;
use shared::messages::MessagesUrl;
use shared::service::HttpConfig;
use shared::stack::StackConfig;

/// The name of this service, as the registry, tokens and problems call it.
pub const SERVICE: &str = env!("CARGO_PKG_NAME");

/// How this service runs.
pub struct Config {
    /// How it serves HTTP.
    pub http: HttpConfig,
    /// How it reaches the others.
    pub stack: StackConfig,
    /// What carries its messages.
    pub messages: MessagesUrl,
    /// Its database.
    pub database: DbConfig,
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
            messages: MessagesUrl::from_vars(&mut vars),
            database: DbConfig::from_vars(&mut vars, "sqlite://data/orders.db"),
            seed_products: vars.or("SEED_PRODUCTS", "off", "on: offer a few products from the start"),
        };
        vars.finish(config)
    }
}
