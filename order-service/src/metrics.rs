//! Metrics of this service.

use std::sync::LazyLock;

use prometheus::{IntCounterVec, register_int_counter_vec};

use crate::domain::{Reason, Status};

#[allow(clippy::expect_used, reason = "registered once, under a unique name")]
static ORDERS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Changes of status, by new status and reason.";
    register_int_counter_vec!("orders_total", help, &["status", "reason"]).expect("the name is unique")
});

pub fn count_status(status: Status) {
    let reason = status.reason().map_or("", Reason::as_str);
    ORDERS.with_label_values(&[status.as_str(), reason]).inc();
}
