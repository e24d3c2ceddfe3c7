//! Background work.

pub mod network_worker; // requests to the card network
pub mod reconciliation; // compares its statement with the books
