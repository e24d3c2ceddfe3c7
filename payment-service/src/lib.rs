#![doc = include_str!("../README.md")]

pub mod config; // every variable
pub mod app; // wires everything below
pub mod routes; // one file per use case
pub mod views; // JSON of payments and refunds
pub mod domain; // payments, money, the ledger's rules: no I/O
pub mod store; // what is kept, and the promises that come with it
pub mod messages; // commands of order-service, and the events that answer them
pub mod clients; // the card network
pub mod tasks; // the worker that sends requests to the card network
pub mod error; // status and code of every error

pub mod card_network; // a simulated card processor: a program of its own
