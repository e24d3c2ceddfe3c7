//! Numbers about orders, at `/metrics` beside the chassis' own.

use std::sync::LazyLock;

use prometheus::{IntCounterVec, Opts};

use crate::domain::{Reason, Status};

static ORDERS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let options = Opts::new("orders_total", "Orders that came to a status, by status and reason.");
    let orders = IntCounterVec::new(options, &["status", "reason"]).ok()?;
    prometheus::register(Box::new(orders.clone())).ok()?;
    Some(orders)
});

/// Counts an order that came to `status`: the outcomes of sagas, and how many begin.
pub fn order_became(status: Status) {
    if let Some(orders) = &*ORDERS {
        let reason = status.reason().map_or("", Reason::as_str);
        orders.with_label_values(&[status.as_str(), reason]).inc();
    }
}
