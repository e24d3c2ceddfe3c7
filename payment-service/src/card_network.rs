//! A simulated card processor.
//!
//! Real in what matters to who uses it: a program of its own with its own state, idempotent by key,
//! and its [`cards`] decline, answer late, fail or fall silent, as the token says. It books before it
//! answers, so that an answer that gets lost has happened. `GET /statement` is its own view of all
//! money moved, to be held against everybody else's.

pub mod config; // every variable
pub mod app; // wires everything below
pub mod routes; // method, path, handler
pub mod cards; // what each token does
pub mod book; // what is held, and what has moved
