//! The services that this one asks.

pub mod card_network;
