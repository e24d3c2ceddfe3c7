//! Calls to the other services.

pub mod products;
pub mod sessions;
