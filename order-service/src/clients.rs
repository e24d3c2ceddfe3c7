//! The services that this one calls.

pub mod users; // user-service
