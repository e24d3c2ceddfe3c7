//! The whole system, as a newcomer runs it, for tests.
//!
//! [`Stack`] starts the real programs on free ports in a folder of its own; [`Api`] speaks to them over
//! HTTP, with a verb per thing that a person does. The tests beside this crate tell the README's
//! stories, and what happens in them when programs are killed.

mod api;
mod stack;

pub use api::{Api, Person, Reply, key};
pub use stack::{Stack, free_ports};

use std::future::Future;
use std::time::Duration;

/// Polls `probe` until it gives a value.
///
/// # Panics
/// When it has not after `patience`; the message names `what`.
pub async fn eventually<T, F>(what: &str, patience: Duration, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
