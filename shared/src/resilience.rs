//! Policies that keep one failure from becoming many. Each is small and does no I/O: whoever
//! does it asks them. Budget and retry are state machines that are told the time.

mod backoff; // how long to wait before trying again
mod budget; // how many retries a service can bear
mod deadline; // how long the caller still waits
mod limiter; // how many requests may run, and how many may queue
pub mod retry; // what may be tried again, and where

pub use backoff::Backoff;
pub use budget::Budget;
pub use deadline::Deadline;
pub use limiter::{Busy, Limiter, Permit};
