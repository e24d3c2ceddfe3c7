//! The program over HTTP.

#![allow(clippy::unwrap_used, reason = "tests")]

mod files;
mod harness;
mod pages;
mod sessions;
