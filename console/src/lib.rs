#![doc = include_str!("../README.md")]

pub mod config; // every variable
pub mod app; // wires everything below
pub mod routes; // one file for each use case
pub mod views; // JSON and files that browsers and programs exchange with this program
pub mod domain; // spans, searches, traffic: no I/O
pub mod store; // spans, logs and figures in SQLite
pub mod clients; // calls to the gateway and the services
pub mod tasks; // the writer of what arrives
pub mod error; // what can go wrong, and its status and code
