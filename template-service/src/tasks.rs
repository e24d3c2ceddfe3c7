//! Background work.

pub mod prune_keys;
