//! The service over HTTP.

#![allow(clippy::unwrap_used, reason = "tests")]

mod access;
mod admins;
mod changing;
mod harness;
mod logging_in;
mod openapi;
mod registering;
mod sessions;
