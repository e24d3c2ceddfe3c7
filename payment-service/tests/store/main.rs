//! The store's promises, kept on every database.

#![allow(clippy::unwrap_used, reason = "a test")]

mod harness;
mod ledger;
mod listing;
mod card_network_worker;
mod reconciling;
mod refunds;
mod roles;
mod work;
