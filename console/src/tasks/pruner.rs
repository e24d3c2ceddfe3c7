//! Deletes traces and logs after a day, and the oldest when there are too many.

use std::time::Duration;

use shared::stop::Stop;

use super::writer::now_us;
use crate::store::Store;

const INTERVAL: Duration = Duration::from_secs(10);
const KEPT_US: i64 = 24 * 3600 * 1_000_000;

pub async fn prune(store: Store, max_bytes: i64, stop: Stop) {
    while !stop.is_requested() {
        if let Err(error) = store.prune(now_us() - KEPT_US, max_bytes).await {
            log::warn!(error:%; "old traces and logs cannot be deleted");
        }
        stop.sleep(INTERVAL).await;
    }
}
