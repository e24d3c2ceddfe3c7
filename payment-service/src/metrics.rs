//! Counts the outcomes of payments and refunds, and the money that moved.

use std::sync::LazyLock;

use prometheus::{IntCounterVec, register_int_counter_vec};

use crate::domain::{Cause, Change, Notice};

#[allow(clippy::expect_used, reason = "registered once, under a unique name")]
fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register_int_counter_vec!(name, help, labels).expect("the name is unique")
}

static PAYMENTS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("payments_total", "Outcomes of payments.", &["outcome"]));

static REFUNDS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("refunds_total", "Changes of status of refunds.", &["status"]));

static MONEY: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Money that moved, in the smallest unit of the currency.";
    counter("ledger_transferred_total", help, &["cause", "currency"])
});

/// Returns a closure that counts `change`. Call it after the commit.
pub fn count_on_commit(change: &Change) -> impl FnOnce() + Send + use<> {
    let outcome = change.notice.as_ref().map(outcome);
    let refund = change.refund.as_ref().map(|refund| refund.status.as_str());
    let transfer = change.transfer;
    move || {
        outcome.iter().for_each(|outcome| PAYMENTS.with_label_values(&[*outcome]).inc());
        refund.iter().for_each(|status| REFUNDS.with_label_values(&[*status]).inc());
        if let Some(transfer) = transfer {
            let cause = match transfer.cause {
                Cause::Capture => "capture",
                Cause::Refund(_) => "refund",
            };
            let money = MONEY.with_label_values(&[cause, transfer.amount.currency().as_str()]);
            money.inc_by(transfer.amount.amount().unsigned_abs());
        }
    }
}

fn outcome(notice: &Notice) -> &'static str {
    match notice {
        Notice::Authorized => "authorized",
        Notice::Declined(_) => "declined",
        Notice::Captured => "captured",
        Notice::Voided => "voided",
        Notice::Refunded => "refunded",
        Notice::Stuck { .. } => "stuck",
    }
}
