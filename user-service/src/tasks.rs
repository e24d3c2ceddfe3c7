//! Background work.

pub mod publish_keys;
