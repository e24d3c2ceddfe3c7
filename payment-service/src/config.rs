//! The variables of this service.

use std::time::Duration;

use shared::config::{ConfigError, Vars};
use shared::db::DbConfig;
use shared::messages::MessagesUrl;
use shared::resilience::Backoff;
use shared::service::HttpConfig;
use shared::stack::StackConfig;
use url::Url;

use crate::domain::Patience;

/// How this service is set up.
#[derive(Clone)]
pub struct Config {
    /// How it serves HTTP.
    pub http: HttpConfig,
    /// How it reaches the others.
    pub stack: StackConfig,
    /// What carries its messages.
    pub messages: MessagesUrl,
    /// Where payments are kept.
    pub database: DbConfig,
    /// Where the card network is.
    pub card_network_url: Url,
    /// How long things may take.
    pub timing: Timing,
}

/// How long things may take. Not variables: they depend on each other.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For one question to the card network. Its slowest card takes 3 s.
    pub question: Duration,
    /// For a replica to carry out what it leased: a question, and to write the answer down.
    pub lease: Duration,
    /// How often to look for work that another replica left behind, or that is due again.
    pub poll: Duration,
    /// Between tries.
    pub backoff: Backoff,
    /// Until the order is told that it takes too long. The order itself waits 60 s in all.
    pub patience: Patience,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            question: Duration::from_secs(4),
            lease: Duration::from_secs(7),
            poll: Duration::from_secs(1),
            backoff: Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(10) },
            patience: Patience { authorize: Duration::from_secs(20), others: Duration::from_secs(60) },
        }
    }
}

impl Config {
    /// Reads the variables.
    ///
    /// # Errors
    /// Every variable that is missing or bad.
    pub fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let config = Self {
            http: HttpConfig::from_vars(&mut vars, "3021"),
            stack: StackConfig::from_vars(&mut vars),
            messages: MessagesUrl::from_vars(&mut vars),
            database: DbConfig::from_vars(&mut vars, "sqlite://data/payments.db"),
            card_network_url: vars.or("CARD_NETWORK_URL", "http://127.0.0.1:3031", "the card network"),
            timing: Timing::default(),
        };
        vars.finish(config)
    }
}
