//! HTTP client for calls from one service to another.
//!
//! It balances calls over the registered replicas, propagates request id, trace and deadline, adds a service
//! token, and retries by the policy in [`crate::resilience::retry`]. Bodies are JSON and at most 2 MiB; it
//! does not stream.

mod context; // request id, trace and deadline, propagated to calls
mod probe; // probes an ejected replica
mod request; // builds a call, and runs its attempts

pub use context::{ATTEMPT_HEADER, Context};
pub use probe::probe;
pub use request::{RequestBuilder, describe_attempt, wait_for_retry};

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use uuid::Uuid;

use crate::auth::ServiceKeys;
use crate::balancer::{Picker, Pool, Strategy};
use crate::resilience::{Budget, Limiter};

/// Mints the service tokens of one service.
#[derive(Clone)]
pub struct TokenSource {
    service: &'static str,
    keys: ServiceKeys,
}

impl TokenSource {
    pub fn new(service: &'static str, keys: ServiceKeys) -> Self {
        Self { service, keys }
    }

    /// A token for one call of the service `callee`, on behalf of `person` if given.
    pub fn mint(&self, callee: &str, person: Option<Uuid>) -> String {
        self.keys.mint(self.service, callee, person)
    }
}

/// Client of one service. Clones share the pool, the retry budget and the concurrency limit.
#[derive(Clone)]
pub struct ServiceClient {
    pool: Arc<Pool>,
    picker: Arc<Picker>,
    budget: Arc<Budget>,
    limiter: Limiter,
    tokens: TokenSource,
}

/// Why there is no response. A response of any status is not an error.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No replica could be reached.
    #[error("{0} cannot be reached")]
    Unavailable(String),
    /// Every replica, or this client, has reached its concurrency limit.
    #[error("{0} is busy")]
    Busy(String),
    /// The call's timeout or the caller's deadline has passed.
    #[error("{0} did not answer in time")]
    TimedOut(String),
    /// The connection broke before the response was complete.
    #[error("the connection to {0} broke")]
    Broken(String),
    /// The request cannot be sent, or the response is too large.
    #[error("{0} and this do not understand each other: {1}")]
    Malformed(String, String),
}

impl ServiceClient {
    pub fn new(pool: Arc<Pool>, tokens: TokenSource) -> Self {
        Self {
            pool,
            picker: Arc::new(Picker::new(Strategy::LeastConnections)),
            budget: Arc::new(Budget::new(Instant::now())),
            limiter: Limiter::new(1024, 128, Duration::from_millis(100)),
            tokens,
        }
    }

    /// Name of the called service.
    pub fn service(&self) -> &str {
        self.pool.service()
    }

    pub fn get(&self, path: impl Into<String>) -> RequestBuilder<'_> {
        RequestBuilder::new(self, Method::GET, path.into())
    }

    pub fn post(&self, path: impl Into<String>) -> RequestBuilder<'_> {
        RequestBuilder::new(self, Method::POST, path.into())
    }

    pub fn delete(&self, path: impl Into<String>) -> RequestBuilder<'_> {
        RequestBuilder::new(self, Method::DELETE, path.into())
    }
}
