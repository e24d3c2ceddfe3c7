//! The chassis: plumbing that any service of any business needs, and no business noun.
//!
//! Suggested reading order: top to bottom.

pub mod auth; // who is calling: user tokens and service tokens
pub mod body; // strict JSON bodies: every fault named at once
pub mod config; // variables, read once, into types
pub mod db;
pub mod problem; // errors as RFC 9457 problem documents // one store, two databases
