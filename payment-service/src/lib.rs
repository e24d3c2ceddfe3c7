#![doc = include_str!("../README.md")]

pub mod config; // every variable
pub mod app; // wires everything below
pub mod routes; // method, path, handler
pub mod views; // resources as JSON
pub mod domain; // payments, money, the ledger's rules: no I/O
pub mod store; // the database and its promises
pub mod messages; // commands of order-service, and the events it gets
pub mod clients; // calls to the card network
pub mod tasks; // the worker that sends requests to the card network
pub mod error; // errors, their statuses and codes
pub mod metrics; // outcomes of payments and refunds

pub mod card_network; // a simulated card processor: a program of its own
