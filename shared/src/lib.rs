//! The chassis: plumbing that any service of any business needs, and no business noun.
//!
//! Suggested reading order: top to bottom.

pub mod config; // variables, read once, into types
pub mod problem; // errors as RFC 9457 problem documents
pub mod body; // strict JSON bodies: every fault named at once
pub mod stop; // how a program's tasks learn that they should finish
pub mod telemetry; // logs
pub mod metrics; // numbers
pub mod http; // one HTTP exchange with one address
pub mod trace; // what led to what
pub mod auth; // who is calling: user tokens and service tokens
pub mod request; // ids, paging, versions and preferences in a request
#[cfg(feature = "db")]
pub mod db; // one store, two databases
#[cfg(feature = "db")]
pub mod idempotency; // a request that is sent twice happens once
pub mod openapi; // what every OpenAPI document has in common
pub mod resilience; // policies that keep one failure from becoming many
pub mod registry; // who is there
pub mod balancer; // whom to ask
pub mod client; // one service asks another
pub mod service; // the service template: everything that is the same in every program
pub mod stack; // a service among others
#[cfg(feature = "db")]
pub mod messages; // work that must survive a crash
#[cfg(any(test, feature = "testing"))]
pub mod testing; // what tests share

#[doc(hidden)]
pub use pastey::paste;
