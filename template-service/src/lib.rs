#![doc = include_str!("../README.md")]

pub mod config; // every variable
pub mod app; // wires everything below
pub mod routes; // one file for each use case
pub mod views; // resources as JSON
pub mod domain; // things and their names: no I/O
pub mod store; // the database and its guarantees
pub mod error; // what can go wrong, and its status and code
