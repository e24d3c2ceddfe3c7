//! Deletes idempotency keys whose time is over, every ten minutes.

use std::time::Duration;

use shared::stop::Stop;

use crate::store::Store;

const INTERVAL: Duration = Duration::from_secs(600);

pub async fn run(store: Store, stop: Stop) {
    while !stop.is_requested() {
        if let Err(error) = store.db().transaction(async |tx| store.prune_keys(tx).await).await {
            log::warn!(error:%; "old idempotency keys cannot be pruned");
        }
        stop.sleep(INTERVAL).await;
    }
}
