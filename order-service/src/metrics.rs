//! Counts the orders by status, and measures the duration of checkouts.

use std::sync::LazyLock;

use prometheus::{HistogramVec, IntCounterVec, register_histogram_vec, register_int_counter_vec};

use crate::domain::{Order, Reason, Status};

/// Buckets in seconds. An authorization may take 30 s, a capture 60 s.
const CHECKOUT: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

#[allow(clippy::expect_used, reason = "registered once, under a unique name")]
static ORDERS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Changes of status, by new status and reason.";
    register_int_counter_vec!("orders_total", help, &["status", "reason"]).expect("the name is unique")
});

#[allow(clippy::expect_used, reason = "registered once, under a unique name")]
static CHECKOUTS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let (name, help) = ("checkout_duration_seconds", "Time from an order to the outcome of its checkout.");
    register_histogram_vec!(name, help, &["outcome"], CHECKOUT.to_vec()).expect("the name is unique")
});

/// Exports every status with the count 0: Prometheus sees no increase in a counter that begins with 1.
pub fn init() {
    for status in Status::all() {
        ORDERS.with_label_values(&labels(status));
    }
}

/// Counts the new status of `order`, and the time of its checkout if that has ended.
pub fn count_status(order: &Order) {
    let status = order.status();
    ORDERS.with_label_values(&labels(status)).inc();
    // An order reaches one of these at most once.
    if matches!(status, Status::Confirmed | Status::Rejected(_) | Status::Cancelled) {
        let took = order.updated_at() - order.created_at;
        CHECKOUTS.with_label_values(&[status.as_str()]).observe(took.as_seconds_f64());
    }
}

fn labels(status: Status) -> [&'static str; 2] {
    [status.as_str(), status.reason().map_or("", Reason::as_str)]
}
