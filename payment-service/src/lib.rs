#![doc = include_str!("../README.md")]

pub mod config; // every variable
pub mod app; // wires everything below
pub mod routes; // one file for each use case
pub mod views; // resources as JSON
pub mod domain; // payments, money, the ledger's rules: no I/O
pub mod store; // the database and its guarantees
pub mod messages; // commands of order-service, and the events it gets
pub mod clients; // calls to the card network
pub mod tasks; // sends requests to the card network; reconciles with its statement
pub mod error; // errors, their statuses and codes
pub mod metrics; // outcomes of payments and refunds

pub mod card_network; // a simulated card processor: a program of its own
