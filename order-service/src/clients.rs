//! The services that this one asks.

pub mod customers; // user-service
