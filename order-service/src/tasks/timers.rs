//! The timers of sagas.
//!
//! A timer is the column `wake_at` of an order's row, so it survives restarts. Any replica may handle it. The first
//! replica locks the row. If this replica crashes, the lock is released. The decision of the checkout sets the timer
//! again or clears it.

use std::time::Duration;

use shared::db::DbError;
use shared::stop::Stop;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::Error;
use crate::store::Store;

const POLL_INTERVAL: Duration = Duration::from_secs(1);

pub async fn run(store: Store, stop: Stop) {
    while !stop.is_requested() {
        match advance_due(&store, store.db().now()).await {
            Ok(Some(order)) => log::info!(order_id = order.to_string(); "a timer expired"),
            Ok(None) => stop.sleep(POLL_INTERVAL).await,
            Err(error) => {
                log::warn!(error:%; "the timers cannot be read");
                stop.sleep(POLL_INTERVAL).await;
            }
        }
    }
}

/// Applies one timer that has expired at the time `now`. Returns the id of its order, or `None` if no timer has
/// expired.
pub async fn advance_due(store: &Store, now: OffsetDateTime) -> Result<Option<Uuid>, Error> {
    if !store.is_any_due(now).await? {
        return Ok(None);
    }
    let mut locked = None;
    let advanced = store.db().transaction(async |tx| {
        locked = store.lock_due(tx, now).await?;
        if let Some(id) = locked {
            store.apply_timer(tx, id, now).await?;
        }
        Ok::<_, Error>(locked)
    });
    match (advanced.await, locked) {
        (Ok(advanced), _) => Ok(advanced),
        // The timer stays due, and a retry may succeed.
        (Err(Error::Db(error @ (DbError::Unavailable(_) | DbError::Locked(_)))), _) => Err(error.into()),
        (Err(error), None) => Err(error),
        // An order that cannot be handled must not block the others. The commit may have failed as well.
        (Err(error), Some(id)) => {
            log::error!(order_id = id.to_string(), error:%; "a timer is postponed");
            store.db().transaction(async |tx| store.postpone(tx, id, now).await).await?;
            Ok(Some(id))
        }
    }
}
