//! Background work; `app.rs` starts it.

pub mod network_worker;
