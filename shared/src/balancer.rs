//! Client-side load balancing: knows the replicas of a service and their health, and picks one for each
//! request.
//!
//! ```text
//! registry ──update──► Pool ◄──report_check── active health checks
//!                       │ ▲
//!          pick ────────┘ └──────── PickedReplica::record ── outcome of the request
//! ```
//!
//! The gateway and the service client use the same code. It does no I/O, and the caller passes the time. All
//! threads share a [`Pool`]; a [`Picker`] is the balancing strategy of one route, with its state.

mod ejection; // circuit breaker of one replica (outlier ejection)
mod ewma; // moving average of a replica's latency
mod members; // the state of a pool: members and candidates
mod picker; // balancing strategies
mod pool; // the replicas of one service
mod replica; // state of one replica
mod instance; // id, URL and metadata of a replica
mod ring; // consistent hashing

pub use instance::{Instance, InvalidUrl, weight_of};
pub use members::{HealthSource, PickError};
pub use picker::{Picker, Strategy};
pub use pool::{PickedReplica, Pool, Settings};
pub use replica::{CheckResult, Health, Maintenance, ReplicaKey, RequestOutcome, Snapshot};
pub use ring::hash;
