//! Background work.

pub mod card_network_worker; // requests to the card network
pub mod reconciliation; // compares its statement with the books
