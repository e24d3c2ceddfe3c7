//! `Prefer: wait=N` delays the answer to a new order until the order is settled, for at most N seconds.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::HeaderName;
use shared::client::Context;
use shared::idempotency::{Outcome, StoredResponse};
use shared::request::PreferWait;
use tokio::time::{Instant, timeout_at};

use crate::domain::Order;
use crate::error::Error;
use crate::store::Store;

/// The wait ends this long before the deadline of the caller.
const DEADLINE_MARGIN: Duration = Duration::from_millis(500);

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A client without this preference gets the order as it was placed. A replay does not wait.
pub(super) async fn respond(
    store: &Store,
    outcome: Outcome<Order>,
    answer: impl Fn(&Order) -> StoredResponse,
    wait: PreferWait,
    context: &Context,
) -> HttpResponse {
    let (Outcome::Done { value: order, .. }, Some(time)) = (&outcome, wait.0) else {
        return outcome.into_stored().response();
    };
    let left = context.remaining().map_or(time, |left| left.saturating_sub(DEADLINE_MARGIN).min(time));
    let mut response = match settled(store, order.clone(), Instant::now() + left).await {
        Ok(order) => answer(&order).response(),
        Err(error) => {
            log::warn!(error:%; "an order cannot be read");
            outcome.into_stored().response()
        }
    };
    if let Ok(applied) = format!("wait={}", time.as_secs()).parse() {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    response
}

/// Waits until the status of the order is not transient, or until `end`. Returns the order as it is then.
async fn settled(store: &Store, mut order: Order, end: Instant) -> Result<Order, Error> {
    let mut subscription = store.notifier().subscribe(&order);
    while order.status().is_transient() {
        match timeout_at(end, subscription.changed()).await {
            Ok(changed) => order = changed,
            Err(_) => return store.order(order.id).await,
        }
    }
    Ok(order)
}
