//! A simulated card processor: a program of its own, with its own database.
//!
//! Its operations are idempotent by key. The token of a [card](cards) decides whether it declines, answers
//! late, fails or does not answer. The effect is committed before the response is sent, so a lost response
//! has had its effect. `GET /statement` lists all money moved, to compare with the ledger.

pub mod config; // every variable
pub mod app; // wires everything below
pub mod routes; // method, path, handler
pub mod cards; // the behaviour of each token
pub mod store; // authorizations and movements of money
pub mod error; // errors, their statuses and codes
