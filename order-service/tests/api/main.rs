//! The service over HTTP, with stubs of user-service and payment-service.

#![allow(clippy::unwrap_used, reason = "tests")]

mod catalogue;
mod fulfilling;
mod harness;
mod idempotency;
mod limits;
mod openapi;
mod operating;
mod outages;
mod placing;
mod query_plans;
mod races;
mod reading;
mod streaming;
mod stubs;
