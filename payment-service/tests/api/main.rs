//! The service as the others see it: real HTTP, the real card network, and a stub that plays the
//! order service and publishes the keys of user tokens.

#![allow(clippy::unwrap_used, reason = "a test")]

mod card_network;
mod commands;
mod crashes;
mod harness;
mod query_plans;
mod reading;
mod reconciling;
mod refunding;
mod tokens;
