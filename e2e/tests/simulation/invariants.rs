//! The invariants: some are checked at every write, others when everything is settled.

use order_service::checkout::{Step, Transition, Trigger};
use order_service::domain::Status;
use payment_service::clients::card_network::idempotency_key;
use payment_service::domain::{self as payment, Account, Intent, Payment, RefundStatus};

use super::network::Shown;
use super::orders::Row;
use super::people::People;
use super::world::World;

/// The place of an order's goods in the stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goods {
    OnHand,
    Reserved,
    Sold,
}

impl World {
    /// Checks a change of an order before it is written.
    pub(crate) fn check_change(&self, event: &Trigger, moved: &Transition) {
        let Row { order, saga, .. } = &self.orders.rows[&moved.order.id];
        let (from, to) = (order.status(), moved.order.status());
        assert!(from == to || from.may_become(to), "{from:?} becomes {to:?} by {event:?}");
        assert_eq!(moved.order.version(), order.version() + 1, "two changes have one version");
        let is_due = saga.wake_at.is_some_and(|at| at <= self.now);
        assert!(*event != Trigger::Timer || is_due, "a timer acts twice, or too early: {saga:?}");
    }

    /// Checks a change of a payment before it is written.
    pub(crate) fn check_payment(&self, after: &Payment) {
        assert!(after.refunded.amount() + after.refund_pending.amount() <= after.amount.amount());
        let Some(before) = self.payments.rows.get(&after.id).map(|row| &row.payment) else { return };
        assert!(after.version > before.version, "the written version is older than the stored one");
        let (from, to) = (before.state.status, after.state.status);
        let is_final =
            matches!(from, payment::Status::Voided | payment::Status::Declined | payment::Status::Refunded);
        assert!(!is_final || from == to, "a payment that is {from:?} becomes {to:?}");
    }

    /// Checks a request to the card network.
    pub(crate) fn check_request(&self, payment: &Payment) {
        use payment::{Intent, NetworkRequest, Status};
        let undoes = payment.state.intent == Some(Intent::Void);
        let is_safe = undoes || payment.next_request() == Some(NetworkRequest::Status);
        assert!(
            payment.state.status != Status::Unknown || is_safe,
            "an operation with unknown result is repeated: {payment:?}"
        );
    }

    /// Checks goods and money after every write.
    pub(crate) fn check(&self) {
        self.check_goods();
        self.check_keys();
        let entries = self.payments.ledger.values().flatten();
        assert_eq!(entries.map(|(_, amount)| amount).sum::<i64>(), 0, "the ledger is not balanced");
        for row in self.payments.rows.values() {
            self.check_money(&row.payment);
        }
    }

    fn check_goods(&self) {
        for stock in &self.orders.stock {
            let held = |goods| {
                let rows = self.orders.rows.values().filter(|row| goods_of(row) == goods);
                let lines = rows.flat_map(|row| &row.order.lines);
                let lines = lines.filter(|line| line.product_id == stock.product_id);
                lines.map(|line| line.quantity.get()).sum::<i64>()
            };
            assert_eq!((stock.reserved, stock.sold), (held(Goods::Reserved), held(Goods::Sold)), "{stock:?}");
            let all = stock.on_hand + stock.reserved + stock.sold;
            assert!(stock.on_hand >= 0 && all == stock.initial + stock.adjusted, "{stock:?}");
        }
    }

    fn check_keys(&self) {
        let mut keys: Vec<_> = self.orders.rows.values().map(|row| row.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), self.orders.rows.len(), "two orders have one idempotency key");
    }

    fn check_money(&self, payment: &Payment) {
        let entries = self.payments.ledger.range((payment.id, String::new())..);
        let entries = entries.take_while(|((id, _), _)| *id == payment.id).flat_map(|(_, entries)| entries);
        let ours: i64 =
            entries.filter(|(account, _)| *account == Account::CardNetwork).map(|(_, amount)| amount).sum();
        let captured = if is_captured(payment) { payment.amount.amount() } else { 0 };
        assert_eq!(ours, captured - payment.refunded.amount(), "the ledger of {payment:?}");
        let Some(shown) = self.shown(payment) else { return };
        assert!(shown.times_captured <= 1, "captured twice: {shown:?}");
        assert!(shown.refunded <= shown.captured && shown.captured <= payment.amount.amount(), "{shown:?}");
        assert!(payment.refunded.amount() <= shown.refunded, "{payment:?} {shown:?}");
        assert!(!is_captured(payment) || shown.times_captured == 1, "{payment:?} {shown:?}");
    }

    /// Checks that after a long outage of the card network every unfinished saga names its error.
    pub(crate) fn check_without_network(&self) {
        for Row { order, saga, .. } in self.orders.rows.values() {
            assert!(!order.status().is_transient() && saga.wake_at.is_none(), "{order:?} {saga:?}");
            assert!(saga.step == Step::Done || saga.last_error.is_some(), "stuck without an error: {saga:?}");
        }
    }

    /// Checks that every order is settled, and that its goods and money agree with its status.
    pub(crate) fn check_settled(&self) {
        assert!(self.payments.refunds.iter().all(|refund| refund.status != RefundStatus::Pending));
        self.check_answers();
        for Row { order, saga, .. } in self.orders.rows.values() {
            let payment = &self.payments.rows[&order.payment_id].payment;
            let shown = self.shown(payment);
            let seen = format!("{:?} {saga:?} {payment:?} {shown:?}", order.status());
            assert_eq!((saga.step, payment.next_request()), (Step::Done, None), "{seen}");
            let (times, captured, refunded) = shown
                .as_ref()
                .map_or((0, 0, 0), |shown| (shown.times_captured, shown.captured, shown.refunded));
            assert_eq!((payment.refunded.amount(), is_captured(payment)), (refunded, times == 1), "{seen}");
            let total = order.total.amount();
            match order.status() {
                Status::Confirmed | Status::Shipped | Status::Delivered => {
                    let given = self.payments.refunds.iter().filter(|refund| {
                        refund.payment_id == payment.id && refund.status == RefundStatus::Succeeded
                    });
                    let mut gifts = 0;
                    for refund in given {
                        assert_eq!(refund.reason, "a gift", "{seen}");
                        gifts += refund.amount.amount();
                    }
                    assert_eq!((times, captured, refunded), (1, total, gifts), "{seen}");
                }
                Status::Refunded => assert_eq!((times, captured, refunded), (1, total, total), "{seen}"),
                Status::Rejected(_) | Status::Cancelled => {
                    let is_held = shown.is_some_and(|shown| shown.status == "authorized");
                    assert!(!is_held && captured == refunded, "{seen}");
                }
                Status::AwaitingPayment | Status::Cancelling | Status::Refunding | Status::NeedsAttention => {
                    panic!("not settled: {seen}");
                }
            }
        }
    }

    /// Checks that every acknowledged order is stored, and every request answered.
    fn check_answers(&self) {
        let People { acknowledged, refused, unanswered, .. } = &self.people;
        assert!(unanswered.is_empty(), "no answer to {unanswered:?}");
        for (key, order) in acknowledged {
            let placed_with = self.orders.rows.get(order).map(|row| row.key);
            assert_eq!(placed_with, Some(*key), "a customer got an answer with {order}");
        }
        for Row { order, key, .. } in self.orders.rows.values() {
            // A late copy of a refused request may succeed.
            assert!(
                acknowledged.contains_key(key) || refused.contains(key),
                "no customer got an answer with {order:?}"
            );
        }
    }

    fn shown(&self, payment: &Payment) -> Option<Shown> {
        self.network.show(&idempotency_key(payment.id, Intent::Authorize)).ok()
    }
}

fn goods_of(Row { order, saga, .. }: &Row) -> Goods {
    match order.status() {
        Status::AwaitingPayment => Goods::Reserved,
        Status::NeedsAttention if saga.step == Step::Capture => Goods::Reserved,
        Status::Confirmed | Status::Shipped | Status::Delivered => Goods::Sold,
        _ => Goods::OnHand,
    }
}

fn is_captured(payment: &Payment) -> bool {
    use payment::Status::{Captured, PartiallyRefunded, Refunded, Refunding};
    matches!(payment.state.status, Captured | Refunding | PartiallyRefunded | Refunded)
}
