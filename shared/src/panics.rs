//! Panics as errors: a mistake in the work for one request must not end the work for others.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::future::FutureExt as _;

/// Its text goes to the log and into dead letters. No client of the API sees it.
#[derive(Debug, thiserror::Error)]
#[error("it panicked: {0}")]
pub(crate) struct Panicked(String);

impl Panicked {
    pub(crate) fn of(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("without a text").to_owned())
    }
}

pub(crate) async fn catch_panic<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| Panicked::of(&*panic))
}
