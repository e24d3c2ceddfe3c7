//! Background work.

pub mod writer; // writes what arrives
pub mod customers; // of the lab
pub mod pruner; // deletes what is old, or too much
