//! Policies that keep one failure from becoming many. Each is a small state machine that is told the
//! time; whoever does the I/O asks it.

mod backoff; // how long to wait before trying again
mod budget; // how many retries a service can bear
mod deadline; // how long the caller still waits
mod limiter; // how many requests may run, and how many may queue
pub mod retry; // what may be tried again, and where

pub use backoff::Backoff;
pub use budget::Budget;
pub use deadline::Deadline;
pub use limiter::{Busy, Limiter, Permit};
