//! The service over HTTP, on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;
mod things;
