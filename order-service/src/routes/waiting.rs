//! `Prefer: wait=N`: the answer waits until the order rests, or the time is over.

use std::time::Duration;

use actix_web::HttpResponse;
use shared::client::Context;
use tokio::time::{Instant, timeout_at};

use super::place_order::created;
use crate::domain::Order;
use crate::error::Error;
use crate::store::Store;

/// Time kept for the answer's way back, when the caller has a deadline.
const WAY_BACK: Duration = Duration::from_millis(500);

/// The answer for a new order, when it rests or `time` is over.
pub(super) async fn waited(store: &Store, order: Order, time: Duration, context: &Context) -> HttpResponse {
    let left = context.remaining().map_or(time, |left| left.saturating_sub(WAY_BACK).min(time));
    let placed = order.clone();
    let order = rested(store, order, Instant::now() + left).await.unwrap_or_else(|error| {
        // The order is placed, and that is an answer too.
        log::warn!(error:%; "an order cannot be watched");
        placed
    });
    let mut response = created(&order).response();
    if let Ok(applied) = format!("wait={}", time.as_secs()).parse() {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    response
}

const PREFERENCE_APPLIED: actix_web::http::header::HeaderName =
    actix_web::http::header::HeaderName::from_static("preference-applied");

async fn rested(store: &Store, mut order: Order, end: Instant) -> Result<Order, Error> {
    let mut watch = store.changes().watch(&order);
    while order.status().is_transient() {
        match timeout_at(end, watch.changed()).await {
            Ok(changed) => order = changed,
            Err(_) => return store.order(order.id).await,
        }
    }
    Ok(order)
}
