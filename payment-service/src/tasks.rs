//! Background work.

pub mod network_worker; // requests to the card network
