#![doc = include_str!("../README.md")]

pub mod config; // every variable
pub mod app; // the only place that wires
pub mod routes; // one file for each use case
pub mod views; // users and tokens as JSON
pub mod domain; // email addresses, names, passwords, users
pub mod passwords; // hashing, slow on purpose
pub mod tokens; // access tokens and refresh tokens
pub mod store; // the database and its guarantees
pub mod tasks; // background work
pub mod error; // what can go wrong, and its status and code
