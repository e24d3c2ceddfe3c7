//! Everything around the service under test, with a verb for each action.

mod others;
mod world;

pub(crate) use others::Others;
pub(crate) use world::{
    Ordered, Setup, TRACE, World, authorize_command, card_network, command, registry, worlds,
};

use std::time::Duration;

pub(crate) async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    shared::testing::eventually(what, Duration::from_secs(60), probe).await
}
