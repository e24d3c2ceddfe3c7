//! Finds changes of orders by other replicas, and publishes them on this replica.
//!
//! A query reads the orders that have subscribers on this replica. It runs soon after a new subscription or a change,
//! and then at growing intervals, up to 400 ms.

use std::time::Duration;

use shared::stop::Stop;

use crate::store::Store;

/// The pause after a new subscription or a change. After each query that finds no change, the pause doubles.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// The pause is at least this long for each order that has subscribers: then one query finds several changes.
const PAUSE_PER_ORDER: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

pub async fn run(store: Store, stop: Stop) {
    let notifier = store.notifier();
    let mut pause = LONGEST_PAUSE;
    while !stop.is_requested() {
        tokio::select! {
            () = stop.sleep(pause) => {}
            () = notifier.subscriber_added() => {
                pause = shortest_pause(notifier.subscribed().len());
                stop.sleep(pause).await;
            }
        }
        let subscribed = notifier.subscribed();
        let changed = store.newer_than(&subscribed).await.unwrap_or_else(|error| {
            log::warn!(error:%; "changed orders cannot be read");
            Vec::new()
        });
        let mut found_any = false;
        for order in &changed {
            found_any |= notifier.publish(order);
        }
        pause = match found_any {
            true => shortest_pause(subscribed.len()),
            false => (2 * pause).min(LONGEST_PAUSE),
        };
    }
}

fn shortest_pause(subscribed: usize) -> Duration {
    let orders = u32::try_from(subscribed).unwrap_or(u32::MAX);
    PAUSE_PER_ORDER.saturating_mul(orders).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_the_number_of_orders_that_have_subscribers() {
        let pauses = [0, 1, 10, 32, 1_000_000].map(|subscribed| shortest_pause(subscribed).as_millis());
        assert_eq!(pauses, [5, 5, 20, 64, 400]);
    }
}
