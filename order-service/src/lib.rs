#![doc = include_str!("../README.md")]

pub mod config; // every variable
pub mod app; // how it is put together
pub mod routes; // method, path, handler
pub mod domain; // what is sold, and what an order may become
pub mod checkout; // the saga: from a cart to a paid order, or back
pub mod store; // what is remembered, and in which transactions
pub mod messages; // what payment-service is told, and says
pub mod timers; // what is done when no answer comes
pub mod clients; // whom this service asks
pub mod changes; // who waits for an order hears of it
pub mod wire; // resources as JSON
pub mod error; // what can go wrong, and how a client sees it
pub mod openapi; // the document at /openapi.json
pub mod metrics; // numbers
pub mod seed; // something to order on the first day
