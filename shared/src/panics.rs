//! Panics as errors: a mistake in the work for one request must not end the work for others.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::future::FutureExt as _;

/// The text is only for the log.
#[derive(Debug, thiserror::Error)]
#[error("the handler panicked: {0}")]
pub(crate) struct Panicked(String);

impl Panicked {
    pub(crate) fn of(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("without a text").to_owned())
    }
}

pub(crate) async fn unless_panics<T>(running: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(running).catch_unwind().await.map_err(|panic| Panicked::of(&*panic))
}
