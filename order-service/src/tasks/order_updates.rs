//! Finds changes of orders by other replicas, and publishes them on this replica.
//!
//! A query reads the orders that have subscribers on this replica. It runs soon after a new subscription or a change,
//! and then at growing intervals, up to 400 ms.

use std::time::Duration;

use shared::stop::Stop;

use crate::store::Store;

/// On an idle system, a checkout takes less than half of this time, so the first query usually finds its result.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

pub async fn run(store: Store, stop: Stop) {
    let notifier = store.notifier();
    let mut pause = LONGEST_PAUSE;
    while !stop.is_requested() {
        tokio::select! {
            () = stop.sleep(pause) => {}
            () = notifier.subscriber_added() => {
                pause = SHORTEST_PAUSE;
                stop.sleep(pause).await;
            }
        }
        let changed = store.newer_than(&notifier.subscribed()).await.unwrap_or_else(|error| {
            log::warn!(error:%; "changed orders cannot be read");
            Vec::new()
        });
        let mut found_any = false;
        for order in &changed {
            found_any |= notifier.publish(order);
        }
        pause = if found_any { SHORTEST_PAUSE } else { (2 * pause).min(LONGEST_PAUSE) };
    }
}
