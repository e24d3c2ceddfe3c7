//! Resilience policies that stop one failure from cascading. The gateway and the service client share them. They do
//! no I/O. Retry and budget are pure state machines: the caller passes the time.

mod backoff; // exponential backoff with jitter
mod budget; // retry budget: retries as a share of the traffic
mod deadline; // deadline propagation
mod limiter; // concurrency limit with a short queue
pub mod retry; // retry policy

pub use backoff::Backoff;
pub use budget::Budget;
pub use deadline::Deadline;
pub use limiter::{Busy, Limiter, Permit};
