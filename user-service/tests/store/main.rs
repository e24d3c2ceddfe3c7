//! The promises of the store, on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used, reason = "tests")]

mod audit;
mod harness;
mod login_attempts;
mod pruning;
mod sessions;
mod users;
