//! Everything around the service under test, with a verb per thing that somebody does.

mod http;
mod others;
mod world;

pub(crate) use http::{Http, Reply};
pub(crate) use others::Others;
pub(crate) use world::{
    Ordered, Setup, TRACE, World, authorize_command, card_network, command, registry, worlds,
};

use std::time::Duration;

/// Polls `probe` until it gives a value.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
