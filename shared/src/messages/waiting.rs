//! How much waits, and for how long.

use std::time::Duration;

/// The broker drops an event that nobody has handled; so long before, it is time to act.
const NOTICE: Duration = Duration::from_secs(2 * 24 * 3600);

/// How many rows there are, and for how many seconds the oldest has waited.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) count: i64,
    pub(super) oldest_age_s: i64,
}

/// The events that the broker stores for a service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) waiting: Waiting,
    /// Until the broker drops the oldest. With none, how long it would keep one.
    pub(super) expires_in: Duration,
}

impl Stored {
    pub(super) fn is_about_to_expire(&self) -> bool {
        self.waiting.count > 0 && self.expires_in < NOTICE
    }
}
