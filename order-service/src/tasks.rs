//! Background work.

pub mod order_updates; // change notification across replicas
pub mod timers; // timers of sagas
