//! The real service over HTTP, between a stub of user-service and a stub of payment-service.

#![allow(clippy::unwrap_used, reason = "tests")]

mod catalogue;
mod fulfilling;
mod harness;
mod idempotency;
mod operating;
mod outages;
mod placing;
mod plans;
mod races;
mod reading;
mod streaming;
mod stubs;
