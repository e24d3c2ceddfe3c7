//! Whom to ask: the replicas of a service, how they do, and which is next.
//!
//! ```text
//! registry ──update──► Pool ◄──report_check── active health checks
//!                       │ ▲
//!          pick ────────┘ └──────── Hold::record ── how the request went
//! ```
//!
//! The gateway and the service client use the same pool. Everything here is told the time and does no
//! I/O. A pool is shared by all threads; a [`Picker`] is one route's strategy and where it stands.

mod ejection; // which replicas failed lately: the circuit breaker of each
mod ewma; // how long a replica takes
mod members; // who belongs to a pool, and who of them may be asked
mod picker; // the strategies
mod pool; // the replicas of one service
mod replica; // one of them
mod instance; // where one is, as a registry knows it
mod ring; // consistent hashing

pub use instance::{Instance, InvalidUrl};
pub use members::{Newcomers, NoReplica};
pub use picker::{Picker, Strategy};
pub use pool::{Hold, Pool, Settings};
pub use replica::{CheckResult, Health, ReplicaKey, RequestOutcome, Snapshot};
