//! Compares what the card network says of a payment with our books.
//!
//! While an operation is under way, the card network may have carried it out or not: both are right then.

use std::ops::RangeInclusive;

use super::{Intent, Payment, Status};

/// The figures of one authorization at the card network, in minor units: from a response, or from its statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub currency: String,
    /// 0 if it was declined.
    pub authorized: i64,
    pub captured: i64,
    pub refunded: i64,
    pub voided: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AmountKind {
    /// Authorized, and neither captured nor voided.
    Held,
    Captured,
    Refunded,
}

/// A figure that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub figure: AmountKind,
    pub ours: Amount,
    pub theirs: Amount,
}

/// An amount as reported. Unlike [`super::Money`], it may be negative or in any currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount {
    pub amount: i64,
    pub currency: String,
}

impl Charge {
    fn held(&self) -> i64 {
        if self.voided || self.captured != 0 { 0 } else { self.authorized }
    }

    fn figures(&self) -> [(AmountKind, i64); 3] {
        [
            (AmountKind::Held, self.held()),
            (AmountKind::Captured, self.captured),
            (AmountKind::Refunded, self.refunded),
        ]
    }

    /// The differences of a charge that our books do not have.
    pub fn differences_without_payment(&self) -> Vec<Difference> {
        let moved = self.figures().into_iter().filter(|(_, theirs)| *theirs != 0);
        moved.map(|(figure, theirs)| difference(figure, 0, &self.currency, theirs, &self.currency)).collect()
    }
}

impl Payment {
    /// Every figure that differs. `None`: the card network has no charge for this payment.
    pub fn differences(&self, charge: Option<&Charge>) -> Vec<Difference> {
        let currency = self.amount.currency();
        let nothing = Charge {
            currency: currency.as_str().to_owned(),
            authorized: 0,
            captured: 0,
            refunded: 0,
            voided: false,
        };
        let charge = charge.unwrap_or(&nothing);
        let differs = |(figure, theirs): (AmountKind, i64)| {
            let allowed = self.allowed(figure);
            let is_possible = match figure {
                AmountKind::Held | AmountKind::Captured => {
                    [*allowed.start(), *allowed.end()].contains(&theirs)
                }
                // Refunds are carried out one after the other.
                AmountKind::Refunded => allowed.contains(&theirs),
            };
            let is_same = is_possible && (theirs == 0 || charge.currency == currency.as_str());
            let ours = if theirs < *allowed.start() { *allowed.start() } else { *allowed.end() };
            (!is_same).then(|| difference(figure, ours, currency.as_str(), theirs, &charge.currency))
        };
        charge.figures().into_iter().filter_map(differs).collect()
    }

    /// The values that agree with our books: from the value before the pending operation to the value after it.
    fn allowed(&self, figure: AmountKind) -> RangeInclusive<i64> {
        use Intent::{Capture, Void};
        use Status::*;
        let all = self.amount.amount();
        let (no, perhaps, yes) = (0..=0, 0..=all, all..=all);
        match (figure, self.state.status, self.state.intent) {
            (AmountKind::Held, Authorizing | Unknown, _) => perhaps,
            (AmountKind::Held, Authorized, None) => yes,
            (AmountKind::Held, Authorized | Declined, Some(_)) => perhaps,
            (AmountKind::Held, _, _) => no,
            (AmountKind::Captured, Captured | Refunding | PartiallyRefunded | Refunded, _) => yes,
            (AmountKind::Captured, Authorized | Unknown, Some(Capture | Void)) => perhaps,
            (AmountKind::Captured, _, _) => no,
            (AmountKind::Refunded, _, _) => {
                let refunded = self.refunded.amount();
                refunded..=refunded + self.refund_pending.amount()
            }
        }
    }
}

fn difference(
    figure: AmountKind,
    ours: i64,
    our_currency: &str,
    theirs: i64,
    their_currency: &str,
) -> Difference {
    let amount = |amount, currency: &str| Amount { amount, currency: currency.to_owned() };
    Difference { figure, ours: amount(ours, our_currency), theirs: amount(theirs, their_currency) }
}

impl AmountKind {
    pub const ALL: [Self; 3] = [Self::Held, Self::Captured, Self::Refunded];

    /// The name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Captured => "captured",
            Self::Refunded => "refunded",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|figure| figure.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Money, PaymentRecord, Purchase, State};

    fn payment(status: Status, intent: Option<Intent>, refunded: i64, pending: i64) -> Payment {
        let money = |amount| Money::new(amount, "EUR".try_into().unwrap()).unwrap();
        let purchase = Purchase {
            id: Uuid::nil(),
            order_id: Uuid::nil(),
            customer_id: Uuid::nil(),
            amount: money(1000),
        };
        let new = Payment::authorize(purchase, String::new(), OffsetDateTime::UNIX_EPOCH);
        Payment::from_record(PaymentRecord {
            state: State { status, intent },
            refunded: money(refunded),
            refund_pending: money(pending),
            ..(*new).clone()
        })
    }

    fn charge(authorized: i64, captured: i64, refunded: i64, voided: bool) -> Charge {
        Charge { currency: "EUR".to_owned(), authorized, captured, refunded, voided }
    }

    /// Figure, ours, theirs.
    fn found(payment: &Payment, charge: Option<&Charge>) -> Vec<(&'static str, i64, i64)> {
        let differences = payment.differences(charge).into_iter();
        differences.map(|it| (it.figure.as_str(), it.ours.amount, it.theirs.amount)).collect()
    }

    #[test]
    fn a_settled_payment_must_agree_in_every_figure() {
        use Status::*;
        for (status, refunded, agrees) in [
            (Authorized, 0, charge(1000, 0, 0, false)),
            (Captured, 0, charge(1000, 1000, 0, false)),
            (PartiallyRefunded, 300, charge(1000, 1000, 300, false)),
            (Refunded, 1000, charge(1000, 1000, 1000, false)),
            (Voided, 0, charge(1000, 0, 0, true)),
            (Declined, 0, charge(0, 0, 0, false)),
        ] {
            let payment = payment(status, None, refunded, 0);
            assert_eq!(found(&payment, Some(&agrees)), [], "{status:?}");
            let more = Charge { refunded: refunded + 1, ..agrees.clone() };
            assert_eq!(found(&payment, Some(&more)), [("refunded", refunded, refunded + 1)], "{status:?}");
            let other = Charge { captured: agrees.captured + 7, voided: true, ..agrees.clone() };
            let captured = ("captured", agrees.captured, agrees.captured + 7);
            assert!(found(&payment, Some(&other)).contains(&captured), "{status:?}");
        }
        assert_eq!(
            found(&payment(Voided, None, 0, 0), Some(&charge(1000, 0, 0, false))),
            [("held", 0, 1000)]
        );
        assert_eq!(
            found(&payment(Authorized, None, 0, 0), Some(&charge(900, 0, 0, false))),
            [("held", 1000, 900)]
        );
    }

    #[test]
    fn what_the_card_network_does_not_know_differs_if_money_moved() {
        assert_eq!(found(&payment(Status::Voided, None, 0, 0), None), []);
        let moved = payment(Status::PartiallyRefunded, None, 300, 0);
        assert_eq!(found(&moved, None), [("captured", 1000, 0), ("refunded", 300, 0)]);
        let unknown = charge(1000, 0, 0, false).differences_without_payment();
        assert_eq!(unknown, [difference(AmountKind::Held, 0, "EUR", 1000, "EUR")]);
        assert_eq!(charge(0, 0, 0, false).differences_without_payment(), []);
    }

    #[test]
    fn an_operation_under_way_may_have_happened_or_not_but_nothing_else() {
        let capturing = payment(Status::Authorized, Some(Intent::Capture), 0, 0);
        for fine in [charge(1000, 0, 0, false), charge(1000, 1000, 0, false), charge(1000, 0, 0, true)] {
            assert_eq!(found(&capturing, Some(&fine)), []);
        }
        let twice = charge(1000, 2000, 0, false);
        assert_eq!(found(&capturing, Some(&twice)), [("captured", 1000, 2000)]);

        let refunding = payment(Status::Refunding, Some(Intent::Refund), 100, 500);
        for (refunded, differs) in [(100, false), (300, false), (600, false), (99, true), (601, true)] {
            let answer = charge(1000, 1000, refunded, false);
            assert_eq!(!found(&refunding, Some(&answer)).is_empty(), differs, "{refunded}");
        }
    }

    #[test]
    fn another_currency_is_another_amount() {
        let dollars = Charge { currency: "USD".to_owned(), ..charge(1000, 1000, 0, false) };
        let differences = payment(Status::Captured, None, 0, 0).differences(Some(&dollars));
        assert_eq!(differences, [difference(AmountKind::Captured, 1000, "EUR", 1000, "USD")]);
    }
}
