//! Deletes sessions, counted failures and idempotency keys whose time is over, every ten minutes.

use std::time::Duration;

use shared::stop::Stop;

use crate::store::{Pruned, Store};

const INTERVAL: Duration = Duration::from_secs(600);

pub async fn run(store: Store, stop: Stop) {
    while !stop.is_requested() {
        // A transaction each: none holds up logins for long, and one that fails does not undo the others.
        for what in Pruned::ALL {
            if let Err(error) = store.db().transaction(async |tx| store.prune(tx, what).await).await {
                log::warn!(what:?, error:%; "old rows cannot be pruned");
            }
        }
        stop.sleep(INTERVAL).await;
    }
}
