//! The program over HTTP, between stubs of the gateway and the services.

#![allow(clippy::unwrap_used, reason = "tests")]

mod actions;
mod bounds;
mod harness;
mod ingest;
mod lab;
mod pages;
mod sessions;
mod views;
