//! Random lives of a payment, against a card network that loses requests and answers.

use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeMap;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;

const TIMEOUTS: Timeouts = Timeouts { authorize: Duration::from_secs(20), others: Duration::from_secs(60) };
const AMOUNT: i64 = 1000;

/// What may follow each status in one change, as the table in `state.rs` says.
const TABLE: [(&str, &[&str]); 9] = [
    ("authorizing", &["authorized", "declined", "voided", "unknown"]),
    ("authorized", &["captured", "voided", "unknown"]),
    ("unknown", &["authorizing", "authorized", "captured", "declined", "voided"]),
    ("captured", &["refunding"]),
    ("refunding", &["captured", "partially_refunded", "refunded"]),
    ("partially_refunded", &["refunding"]),
    ("declined", &[]),
    ("voided", &[]),
    ("refunded", &[]),
];

#[derive(Debug, Clone, Copy)]
enum Card {
    Good,
    Declines,
    DeclinesCapture,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Responds,
    LosesRequest,
    LosesResponse,
    IsAway,
}

#[derive(Debug, Clone, Copy)]
enum Move {
    Capture,
    Void,
    RefundRest,
    Refund(i64),
    Send(Fate),
    Wait(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    Nothing,
    Money,
    Taken,
    LetGo,
    Refused,
}

/// The truth about the money.
struct Network {
    card: Card,
    held: Held,
    times_taken: u32,
    refunds: BTreeMap<Uuid, i64>,
}

impl Network {
    fn respond(&mut self, request: NetworkRequest, refund: Option<&Refund>) -> NetworkResponse {
        match request {
            NetworkRequest::Authorize => {
                if self.held == Held::Nothing {
                    self.held = if matches!(self.card, Card::Declines) { Held::Refused } else { Held::Money };
                }
                self.status(Intent::Authorize)
            }
            NetworkRequest::Capture
                if self.held == Held::Money && matches!(self.card, Card::DeclinesCapture) =>
            {
                NetworkResponse::CaptureDeclined("card_declined".to_owned())
            }
            NetworkRequest::Capture => {
                if self.held == Held::Money {
                    self.held = Held::Taken;
                    self.times_taken += 1;
                }
                self.status(Intent::Capture)
            }
            NetworkRequest::Void => {
                if self.held != Held::Taken {
                    self.held = Held::LetGo;
                }
                self.status(Intent::Void)
            }
            NetworkRequest::Refund => {
                let refund = refund.expect("a refund is pending").clone();
                self.refunds.insert(refund.id, refund.amount.amount());
                NetworkResponse::RefundDone(refund)
            }
            NetworkRequest::Status => unreachable!("answered by `status`"),
        }
    }

    fn status(&self, intent: Intent) -> NetworkResponse {
        match (self.held, intent) {
            (Held::Money, Intent::Authorize) => NetworkResponse::Approved,
            (Held::Nothing | Held::Money, _) => NetworkResponse::NotExecuted,
            (Held::Taken, _) => NetworkResponse::Captured,
            (Held::LetGo, _) => NetworkResponse::Voided,
            (Held::Refused, _) => NetworkResponse::Declined("card_declined".to_owned()),
        }
    }
}

struct Life {
    payment: Payment,
    network: Network,
    refunds: Vec<Refund>,
    /// The balance of the ledger.
    ours: i64,
    captures: u32,
    now: OffsetDateTime,
}

impl Life {
    fn begin(card: Card) -> Self {
        let purchase = Purchase {
            id: Uuid::now_v7(),
            order_id: Uuid::now_v7(),
            customer_id: Uuid::now_v7(),
            amount: eur(AMOUNT),
        };
        let now = OffsetDateTime::UNIX_EPOCH;
        Self {
            payment: Payment::authorize(purchase, "tok".to_owned(), now),
            network: Network { card, held: Held::Nothing, times_taken: 0, refunds: BTreeMap::new() },
            refunds: Vec::new(),
            ours: 0,
            captures: 0,
            now,
        }
    }

    fn makes(&mut self, what: Move) {
        let payment = self.payment.clone();
        match what {
            Move::Wait(seconds) => self.now += Duration::from_secs(seconds),
            Move::Send(fate) => self.send(fate),
            Move::Capture => self.reacts(payment.capture(self.now)),
            Move::Void => {
                let reaction = payment.void(self.now);
                assert!(reaction.is_ok(), "an undo is never refused: {:?}", self.payment);
                self.reacts(reaction);
            }
            Move::RefundRest => self.reacts(payment.refund_rest("test", self.now)),
            Move::Refund(amount) => {
                let left = self.ours - payment.refund_pending.amount();
                let requested = payment.refund(Some(eur(amount)), "test", self.now);
                assert_eq!(requested.is_ok(), amount <= left, "{amount} of {left}: {:?}", self.payment);
                if let Ok((change, _)) = requested {
                    self.changes(change);
                }
            }
        }
    }

    fn reacts(&mut self, reaction: Result<Reaction, Refusal>) {
        if let Ok(Reaction::Changed(change)) = reaction {
            self.changes(*change);
        }
    }

    fn send(&mut self, fate: Fate) {
        let Some(request) = self.payment.next_request() else { return };
        let refund = self.refunds.iter().find(|refund| refund.status == RefundStatus::Pending).cloned();
        let mut respond = || match (request, self.payment.state.intent) {
            (NetworkRequest::Status, Some(intent)) => self.network.status(intent),
            (request, _) => self.network.respond(request, refund.as_ref()),
        };
        let response = match fate {
            Fate::Responds => respond(),
            Fate::LosesRequest => NetworkResponse::Missing,
            Fate::IsAway => NetworkResponse::Failed,
            Fate::LosesResponse => {
                respond();
                NetworkResponse::Missing
            }
        };
        let change = self.payment.clone().apply_response(response.clone(), &TIMEOUTS, self.now);
        self.changes(change.unwrap_or_else(|payment| panic!("{response:?} contradicts {payment:?}")));
    }

    fn changes(&mut self, change: Change) {
        let (before, after) = (&self.payment, &change.payment);
        assert!(after.version > before.version, "every change has a version");
        let (from, to) = (before.state.status.as_str(), after.state.status.as_str());
        let follows = TABLE.iter().any(|(status, next)| *status == from && next.contains(&to));
        assert!(from == to || follows, "{before:?} becomes {to}");
        assert!(after.refunded.amount() + after.refund_pending.amount() <= AMOUNT, "{after:?}");
        if let Some(transfer) = change.transfer {
            self.captures += u32::from(transfer.cause == Cause::Capture);
            let ours = transfer.entries().into_iter().find(|(account, _)| *account == Account::CardNetwork);
            self.ours += ours.expect("money moves to or from the network").1;
        }
        if let Some(refund) = change.refund {
            self.refunds.retain(|other| other.id != refund.id);
            self.refunds.push(refund);
        }
        self.payment = change.payment;
    }

    fn settles(&mut self) {
        for _ in 0..20 {
            self.send(Fate::Responds);
        }
        assert_eq!(self.payment.next_request(), None, "{:?}", self.payment);
    }

    fn agrees_with_the_network(&self) {
        let refunded: i64 = self.network.refunds.values().sum();
        let taken = if self.network.held == Held::Taken { AMOUNT } else { 0 };
        assert_eq!(self.ours, taken - refunded, "the ledger");
        assert!(self.captures <= 1 && self.network.times_taken <= 1, "charged twice");
        assert_eq!(self.payment.refunded.amount(), refunded);
        match self.payment.state.status {
            Status::Authorized => assert_eq!(self.network.held, Held::Money),
            Status::Captured | Status::PartiallyRefunded | Status::Refunded => {
                assert_eq!(self.network.held, Held::Taken);
            }
            Status::Declined | Status::Voided => {
                assert!(!matches!(self.network.held, Held::Money | Held::Taken), "{:?}", self.network.held);
            }
            Status::Authorizing | Status::Unknown | Status::Refunding => panic!("{:?}", self.payment),
        }
    }
}

fn eur(amount: i64) -> Money {
    Money::new(amount, "EUR".try_into().unwrap()).unwrap()
}

const FATES: &[Fate] =
    &[Fate::Responds, Fate::Responds, Fate::LosesRequest, Fate::LosesResponse, Fate::IsAway];

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => select(FATES).prop_map(Move::Send),
        2 => Just(Move::Capture),
        1 => Just(Move::Void),
        1 => Just(Move::RefundRest),
        2 => (1..=AMOUNT + 1).prop_map(Move::Refund),
        1 => (1..30u64).prop_map(Move::Wait),
    ];
    prop::collection::vec(one, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn in_any_sequence_the_payment_ends_in_the_card_networks_state_and_is_captured_at_most_once(
        card in select(&[Card::Good, Card::Good, Card::Declines, Card::DeclinesCapture][..]),
        moves in moves(),
    ) {
        let mut life = Life::begin(card);
        for what in moves {
            life.makes(what);
        }
        life.settles();
        life.agrees_with_the_network();
    }
}

#[test]
fn an_authorization_without_a_response_is_abandoned_and_voided() {
    let mut life = Life::begin(Card::Good);
    life.makes(Move::Send(Fate::LosesResponse));
    life.makes(Move::Wait(21));
    life.makes(Move::Send(Fate::IsAway));
    assert_eq!(life.payment.settled_outcome(), Some(Notice::Declined(payment::UNAVAILABLE.to_owned())));
    life.settles();
    assert_eq!(life.network.held, Held::LetGo);
}

#[test]
fn a_capture_without_a_response_is_reported_as_stuck_once_and_still_succeeds() {
    let mut life = Life::begin(Card::Good);
    life.makes(Move::Send(Fate::Responds));
    life.makes(Move::Capture);
    life.makes(Move::Wait(61));
    let stuck = |life: &Life| {
        let applied = life.payment.clone().apply_response(NetworkResponse::Failed, &TIMEOUTS, life.now);
        applied.map(|change| change.notice).map_err(drop)
    };
    assert_eq!(
        stuck(&life),
        Ok(Some(Notice::Stuck { operation: Intent::Capture, reason: "capture_unanswered" }))
    );
    life.makes(Move::Send(Fate::IsAway));
    assert_eq!(stuck(&life), Ok(None));
    life.settles();
    assert_eq!(life.payment.settled_outcome(), Some(Notice::Captured));
}

#[test]
fn a_void_that_loses_to_the_capture_ends_captured() {
    let mut life = Life::begin(Card::Good);
    life.makes(Move::Send(Fate::Responds));
    life.makes(Move::Capture);
    life.makes(Move::Send(Fate::LosesResponse));
    life.makes(Move::Void);
    life.settles();
    assert_eq!((life.payment.state.status, life.captures), (Status::Captured, 1));
}
