#![doc = include_str!("../README.md")]

pub mod config; // every variable
pub mod app; // wires everything below
pub mod routes; // method, path, handler
pub mod views; // pages as HTML, their texts and files
pub mod domain; // languages, pictures of products: no I/O
pub mod clients; // calls to the other services
pub mod error; // what can go wrong, and its status and code
