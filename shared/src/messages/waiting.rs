//! The number and the age of waiting events.

use std::time::Duration;

/// The broker drops an event that was not handled in time. A warning is logged this long before.
const NOTICE: Duration = Duration::from_secs(2 * 24 * 3600);

/// The number of waiting events, and the age of the oldest in seconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) count: i64,
    pub(super) oldest_age_s: i64,
}

/// The events that the broker stores for a service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) waiting: Waiting,
    /// The time until the broker drops the oldest event. If there is none, the time that the broker stores an event.
    pub(super) expires_in: Duration,
}

impl Stored {
    pub(super) fn is_about_to_expire(&self) -> bool {
        self.waiting.count > 0 && self.expires_in < NOTICE
    }
}
