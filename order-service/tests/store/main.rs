//! The guarantees of the store, on every database.

#![allow(clippy::unwrap_used, reason = "tests")]

mod catalogue;
mod checkouts;
mod crashes;
mod harness;
mod lists;
mod timers;
