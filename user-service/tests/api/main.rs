//! The service over HTTP.

#![allow(clippy::unwrap_used, reason = "tests")]

mod access;
mod admins;
mod changing;
mod document;
mod harness;
mod logging_in;
mod registering;
mod sessions;
