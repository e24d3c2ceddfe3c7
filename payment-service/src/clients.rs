//! The services that this one calls.

pub mod card_network;
