#![doc = include_str!("../README.md")]

pub mod config; // what can be set from outside
pub mod app; // the only place that wires
pub mod routes; // method, path, handler
pub mod domain; // addresses, names, passwords, people
pub mod passwords; // hashing, slowly on purpose
pub mod store; // the promises of the database
pub mod error; // what can go wrong, and its status and code
pub mod openapi; // the API as a document
