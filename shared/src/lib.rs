//! The microservice chassis: configuration, logs, metrics, traces, authentication, database, messaging,
//! service discovery, load balancing and resilience. It contains nothing of the business.
//!
//! Suggested reading order: top to bottom.

pub mod config; // environment variables, parsed into types at start
pub mod problem; // errors as RFC 9457 problem documents
pub mod body; // strict JSON bodies: one response lists every invalid field
pub mod stop; // the signal that ends background tasks
pub mod digest; // digests as text
mod panics; // panics as errors
pub mod alarm; // a timer for deadlines that move
pub mod limits; // open files
pub mod telemetry; // logs
pub mod otlp; // exports spans and log lines
pub mod metrics; // Prometheus
pub mod auth; // authentication: user tokens and service tokens
pub mod tls; // mutual TLS between programs, and TLS towards clients
pub mod http; // one HTTP request to one address
pub mod trace; // distributed tracing: spans, W3C Trace Context
pub mod request; // extractors: ids, paging, If-Match, Prefer
pub mod same_origin; // cross-site request forgery
pub mod lab; // faults that a program does to itself, for demonstrations
#[cfg(feature = "db")]
pub mod db; // one SQL dialect for PostgreSQL and SQLite
#[cfg(feature = "db")]
pub mod idempotency; // Idempotency-Key: a repeated request has one effect
pub mod openapi; // conventions of every OpenAPI document
pub mod resilience; // retries, retry budget, deadlines, concurrency limits
pub mod registry; // service discovery
pub mod balancer; // client-side load balancing and circuit breaking
pub mod client; // calls from one service to another
#[cfg(feature = "db")]
pub mod audit; // what admins did
pub mod service; // the HTTP server of a program: routes, health, middleware, drain
pub mod platform; // registers a service, and gives it clients of the others
#[cfg(feature = "db")]
pub mod messages; // transactional outbox, relay, inbox, dead letters
#[cfg(any(test, feature = "testing"))]
pub mod testing; // test support

#[doc(hidden)]
pub use pastey::paste;
