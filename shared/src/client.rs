//! The service client: one service asks another.
//!
//! A call is balanced over the replicas that the registry knows, carries the request id, the trace,
//! the deadline and a fresh service token, and is tried again by the rule of
//! [`crate::resilience::retry`]. Bodies are JSON and small; what streams goes through the gateway.

mod context; // what a request hands on to the calls made for it
mod request; // a call being put together, and its attempts

pub use context::{ATTEMPT_HEADER, Context};
pub use request::RequestBuilder;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use uuid::Uuid;

use crate::auth::ServiceKey;
use crate::balancer::{Picker, Pool, Strategy};
use crate::resilience::{Budget, Limiter};

/// Makes the service tokens of one service.
#[derive(Clone)]
pub struct TokenSource {
    service: &'static str,
    key: ServiceKey,
}

impl TokenSource {
    /// Tokens of `service`, signed with the stack's key.
    pub fn new(service: &'static str, key: ServiceKey) -> Self {
        Self { service, key }
    }

    /// A token for one call of `callee`, acting for `person` if given.
    pub fn mint(&self, callee: &str, person: Option<Uuid>) -> String {
        self.key.mint(self.service, callee, person)
    }
}

/// Asks one service. Clones share all they know.
#[derive(Clone)]
pub struct ServiceClient {
    pool: Arc<Pool>,
    picker: Arc<Picker>,
    budget: Arc<Budget>,
    limiter: Limiter,
    tokens: TokenSource,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No replica could be reached.
    #[error("{0} cannot be reached")]
    Unavailable(String),
    /// Every replica, or this client, has as much to do as it may have.
    #[error("{0} is busy")]
    Busy(String),
    /// The time is over.
    #[error("{0} did not answer in time")]
    TimedOut(String),
    /// The connection broke before the answer was complete.
    #[error("the connection to {0} broke")]
    Broken(String),
    /// The request or the answer cannot be written or read.
    #[error("{0} and this do not understand each other: {1}")]
    Malformed(String, String),
}

impl ServiceClient {
    /// A client of the service whose replicas are in `pool`.
    pub fn new(pool: Arc<Pool>, tokens: TokenSource) -> Self {
        Self {
            pool,
            picker: Arc::new(Picker::new(Strategy::LeastConnections)),
            budget: Arc::new(Budget::new(Instant::now())),
            limiter: Limiter::new(1024, 128, Duration::from_millis(100)),
            tokens,
        }
    }

    /// The service.
    pub fn service(&self) -> &str {
        self.pool.service()
    }

    /// A GET of `path`.
    pub fn get(&self, path: impl Into<String>) -> RequestBuilder<'_> {
        self.request(Method::GET, path)
    }

    /// A POST to `path`.
    pub fn post(&self, path: impl Into<String>) -> RequestBuilder<'_> {
        self.request(Method::POST, path)
    }

    /// A PUT of `path`.
    pub fn put(&self, path: impl Into<String>) -> RequestBuilder<'_> {
        self.request(Method::PUT, path)
    }

    /// A PATCH of `path`.
    pub fn patch(&self, path: impl Into<String>) -> RequestBuilder<'_> {
        self.request(Method::PATCH, path)
    }

    /// A DELETE of `path`.
    pub fn delete(&self, path: impl Into<String>) -> RequestBuilder<'_> {
        self.request(Method::DELETE, path)
    }

    fn request(&self, method: Method, path: impl Into<String>) -> RequestBuilder<'_> {
        RequestBuilder::new(self, method, path.into())
    }
}
