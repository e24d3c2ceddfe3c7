//! Environment variables, and the time limits, which are constants.

use std::time::Duration;

use shared::config::{ConfigError, Vars};
use shared::db::DbConfig;
use shared::messages::MessagesUrl;
use shared::platform::PlatformConfig;
use shared::resilience::Backoff;
use shared::service::HttpConfig;
use url::Url;

use crate::domain::Timeouts;

/// The name of this service in the registry, in tokens and in events.
pub const SERVICE: &str = env!("CARGO_PKG_NAME");
/// Sends commands and gets the events.
pub const ORDERS: &str = "order-service";
/// The name of the card network in traces; not a registered service.
pub const CARD_NETWORK: &str = "card-network";
/// Issues user tokens.
pub const USERS: &str = "user-service";
/// The permitted calls and events (`calls.txt`).
pub const CALLS: &str = include_str!("../../calls.txt");

#[derive(Clone)]
pub struct Config {
    pub http: HttpConfig,
    pub platform: PlatformConfig,
    pub messages: MessagesUrl,
    pub database: DbConfig,
    pub card_network_url: Url,
    /// The interval between two comparisons of the card network's statement with the books.
    pub reconcile_every: Duration,
    pub timing: Timing,
}

/// Constants, not variables, because they depend on each other.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The time limit of one request to the card network, whose slowest card takes 3 s.
    pub request_timeout: Duration,
    /// Covers a request and the transaction that records its response.
    pub lease: Duration,
    /// The interval between searches for work that is due again or whose lease has expired.
    pub poll: Duration,
    /// The pauses between attempts.
    pub backoff: Backoff,
    /// order-service rejects an order without an authorization after 30 s. A capture without a result needs attention
    /// after 60 s.
    pub timeouts: Timeouts,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(4),
            lease: Duration::from_secs(7),
            poll: Duration::from_secs(1),
            backoff: Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(10) },
            timeouts: Timeouts { authorize: Duration::from_secs(20), others: Duration::from_secs(60) },
        }
    }
}

impl Config {
    /// # Errors
    /// Names every variable that is missing or bad.
    pub fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let http = HttpConfig::from_vars(&mut vars, "3021");
        let platform = PlatformConfig::from_vars(&mut vars, CALLS);
        let messages = MessagesUrl::from_vars(&mut vars);
        let database = DbConfig::from_vars(&mut vars, "sqlite://data/payments.db");
        let card_network_url = vars.or("CARD_NETWORK_URL", "http://127.0.0.1:3031", "the card network");
        let reconcile_every = vars.or(
            "RECONCILE_EVERY",
            "60m",
            "between two comparisons of the card network's statement with the books",
        );
        let timing = Timing::default();
        vars.finish(platform.map(|platform| Self {
            http,
            platform,
            messages,
            database,
            card_network_url,
            reconcile_every,
            timing,
        }))
    }
}
