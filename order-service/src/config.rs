//! Every variable of this service.

use shared::config::{ConfigError, Vars};
use shared::db::DbConfig;
use shared::messages::MessagesUrl;
use shared::platform::PlatformConfig;
use shared::service::HttpConfig;

/// The name in the registry, in tokens and in problems.
pub const SERVICE: &str = env!("CARGO_PKG_NAME");
/// The services that this one calls or sends messages to.
pub const USERS: &str = "user-service";
pub const PAYMENTS: &str = "payment-service";
/// The permitted calls and events (`calls.txt`).
pub const CALLS: &str = include_str!("../../calls.txt");

pub struct Config {
    pub http: HttpConfig,
    pub platform: PlatformConfig,
    pub messages: MessagesUrl,
    pub database: DbConfig,
    /// Whether to add a few products, if they are missing.
    pub seed_products: bool,
    /// How many orders of one customer may await payment; `None` without a limit.
    pub max_awaiting_payment: Option<u32>,
}

impl Config {
    /// # Errors
    /// Every variable that is missing or malformed.
    pub fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let http = HttpConfig::from_vars(&mut vars, "3011");
        let platform = PlatformConfig::from_vars(&mut vars, CALLS);
        let messages = MessagesUrl::from_vars(&mut vars);
        let database = DbConfig::from_vars(&mut vars, "sqlite://data/orders.db");
        let seed_products = vars.or("SEED_PRODUCTS", "off", "on: add a few products at the start");
        let limit: bool = vars.or("RATE_LIMITS", "on", "off lifts the limits, for load tests");
        let max: u32 = vars.or("MAX_AWAITING_PAYMENT", "20", "orders of one customer that may await payment");
        let max_awaiting_payment = limit.then_some(max);
        vars.finish(platform.map(|platform| Self {
            http,
            platform,
            messages,
            database,
            seed_products,
            max_awaiting_payment,
        }))
    }
}
