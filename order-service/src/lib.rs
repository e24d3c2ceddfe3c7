#![doc = include_str!("../README.md")]

pub mod config; // every variable
pub mod app; // wires everything below
pub mod routes; // one file per use case
pub mod views; // JSON of resources
pub mod domain; // products, stock, orders and their statuses: no I/O
pub mod checkout; // the saga: from a cart to a paid order, or back
pub mod store; // the database and its guarantees
pub mod messages; // commands to payment-service, and its events
pub mod clients; // calls to user-service
pub mod tasks; // timers of sagas, change notification
pub mod error; // errors, their statuses and codes
pub mod metrics; // outcomes of sagas
