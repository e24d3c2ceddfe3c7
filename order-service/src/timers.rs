//! The timers of sagas: whatever is due is taken on, by whichever replica looks first.
//!
//! A timer is a column of its order's row. It survives restarts, needs no owner, and is set again or
//! cleared by the decision that it leads to.

use std::time::Duration;

use shared::db::now;
use shared::stop::Stop;

use crate::store::Store;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Takes on due orders until told to stop.
pub async fn run(store: Store, stop: Stop) {
    while !stop.is_requested() {
        match store.advance_due(now()).await {
            Ok(Some(order)) => log::info!(order = order.to_string(); "a timer ran out"),
            Ok(None) => stop.sleep(LOOK).await,
            Err(error) => {
                log::warn!(error:%; "the timers cannot be read");
                stop.sleep(LOOK).await;
            }
        }
    }
}
