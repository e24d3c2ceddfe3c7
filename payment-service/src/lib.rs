#![doc = include_str!("../README.md")]

pub mod config; // every variable
pub mod app; // wires everything below
pub mod routes; // method, path, handler
pub mod messages; // what the order service asks for, and what it is told
pub mod domain; // payments, money, the ledger's rules: no I/O
pub mod store; // what is kept, and the promises that come with it
pub mod worker; // carries out at the card network what is intended
pub mod clients; // the card network, as this service sees it
pub mod error; // what a client is told when something is refused
pub mod openapi; // the API, described from the code

pub mod card_network; // a simulated card processor: a program of its own
