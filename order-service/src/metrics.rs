//! Metrics about orders.

use std::sync::LazyLock;

use prometheus::{IntCounterVec, register_int_counter_vec};

use crate::domain::{Reason, Status};

#[allow(clippy::expect_used, reason = "registered once, under a name of its own")]
static ORDERS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Orders that came to a status, by status and reason.";
    register_int_counter_vec!("orders_total", help, &["status", "reason"]).expect("a new metric")
});

/// Counts an order that has come to `status`.
pub fn order_became(status: Status) {
    let reason = status.reason().map_or("", Reason::as_str);
    ORDERS.with_label_values(&[status.as_str(), reason]).inc();
}
