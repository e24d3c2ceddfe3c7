//! Background work.

pub mod prune_sessions;
