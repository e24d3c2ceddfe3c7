//! The service over HTTP, with stubs of user-service and payment-service.

#![allow(clippy::unwrap_used, reason = "tests")]

mod catalogue;
mod document;
mod fulfilling;
mod harness;
mod idempotency;
mod limits;
mod operating;
mod outages;
mod placing;
mod plans;
mod races;
mod reading;
mod streaming;
mod stubs;
