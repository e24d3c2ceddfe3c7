//! The timers of sagas.
//!
//! A timer is the column `wake_at` of an order's row, so it survives restarts. Any replica may handle it. The
//! first one locks the row; if it crashes, the lock is released. The decision of the checkout sets the timer
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
            Ok(Some(order)) => log::info!(order = order.to_string(); "a timer expired"),
            Ok(None) => stop.sleep(POLL_INTERVAL).await,
            Err(error) => {
                log::warn!(error:%; "the timers cannot be read");
                stop.sleep(POLL_INTERVAL).await;
            }
        }
    }
}

/// Why no order was advanced.
enum Failure {
    Database(DbError),
    /// This order's timer cannot be handled.
    Order(Uuid, Error),
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

/// Applies one timer that has expired at the time `now`. Returns the id of its order, or `None` if there is none.
pub async fn advance_due(store: &Store, now: OffsetDateTime) -> Result<Option<Uuid>, Error> {
    if !store.is_any_due(now).await? {
        return Ok(None);
    }
    let advanced = store.db().transaction(async |tx| {
        let Some(id) = store.lock_due(tx, now).await? else { return Ok(None) };
        store.time_out(tx, id, now).await.map_err(|error| Failure::Order(id, error))?;
        Ok(Some(id))
    });
    match advanced.await {
        Ok(advanced) => Ok(advanced),
        Err(Failure::Database(error)) => Err(error.into()),
        // A retry may succeed.
        Err(Failure::Order(_, Error::Db(error @ (DbError::Unavailable(_) | DbError::Locked(_))))) => {
            Err(error.into())
        }
        // An order that cannot be handled must not block the others.
        Err(Failure::Order(id, error)) => {
            log::error!(order = id.to_string(), error:%; "a timer is postponed");
            store.db().transaction(async |tx| store.postpone(tx, id, now).await).await?;
            Ok(Some(id))
        }
    }
}
