//! The card network: its cards are the real ones, its book is a model that is held against the real one
//! by a test.

use std::collections::BTreeMap;
use std::time::Duration;

use payment_service::card_network::book::{Refused, Request};
use payment_service::card_network::cards::{Card, Manner, Operation};
use payment_service::clients::card_network::key;
use payment_service::domain::{Answer, Intent, Question};
use payment_service::store::Job;

/// What is held, and what has moved.
#[derive(Default)]
pub(crate) struct Network {
    /// Whether nobody reaches it.
    pub(crate) is_away: bool,
    held: BTreeMap<String, Held>,
    /// The key of each movement, and whether it was a capture.
    movements: BTreeMap<String, Movement>,
    calls: BTreeMap<(&'static str, String), i64>,
}

#[derive(Clone)]
struct Held {
    order: Option<String>,
    amount: i64,
    token: String,
    decline_code: Option<String>,
    voided: bool,
}

struct Movement {
    authorization: String,
    is_capture: bool,
    amount: i64,
}

/// An authorization, as the card network shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) status: &'static str,
    pub(crate) decline_code: Option<String>,
    pub(crate) captured: i64,
    pub(crate) refunded: i64,
    pub(crate) times_captured: i64,
}

impl Network {
    /// Carries out what a job asks; answers after a while, or never.
    pub(crate) fn asked(&mut self, job: &Job) -> Option<(Answer, Duration)> {
        let payment = &job.payment;
        let authorization = key(payment.id, Intent::Authorize);
        let question = payment.question()?;
        let (operation, operation_key) = match question {
            Question::Authorize => (Operation::Authorize, authorization.clone()),
            Question::Capture => (Operation::Capture, authorization.clone()),
            Question::Void => (Operation::Void, authorization.clone()),
            Question::Refund => (Operation::Refund, key(job.refund.as_ref()?.id, Intent::Refund)),
            Question::Status => {
                return Some((status(self.show(&authorization), payment.state.intent), Duration::ZERO));
            }
        };
        let token = match question {
            Question::Authorize => payment.token.as_deref(),
            _ => self.held.get(&authorization).map(|held| held.token.as_str()),
        };
        let manner = match token.map(Card::behind) {
            None => Manner::Promptly,
            Some(card) => card.manner(operation, self.count(card, operation, &operation_key)),
        };
        if let Manner::Failing(_) = manner {
            return Some((Answer::Failed, Duration::ZERO));
        }
        let answer = match question {
            Question::Authorize => {
                let request = Request {
                    key: authorization,
                    order_id: payment.order_id.to_string(),
                    amount: payment.amount.amount(),
                    currency: "EUR".to_owned(),
                    token: payment.token.clone()?,
                };
                self.authorize(&request).map_or(Answer::Failed, |shown| decided(&shown))
            }
            Question::Capture => match self.capture(&authorization, &key(payment.id, Intent::Capture)) {
                Ok(_) => Answer::Captured,
                Err(Refused::Declined(code)) => Answer::CaptureDeclined(code),
                Err(Refused::Voided) => Answer::Voided,
                Err(_) => Answer::Failed,
            },
            Question::Void => match self.void(&authorization) {
                Ok(_) => Answer::Voided,
                Err(Refused::Captured) => Answer::Captured,
                Err(_) => Answer::Failed,
            },
            Question::Refund => {
                let refund = job.refund.clone()?;
                match self.refund(&authorization, &operation_key, refund.amount.amount()) {
                    Ok(_) => Answer::RefundDone(refund),
                    Err(Refused::Unknown) => Answer::Failed,
                    Err(_) => Answer::RefundRefused(refund),
                }
            }
            Question::Status => return None,
        };
        match manner {
            Manner::Promptly | Manner::Failing(_) => Some((answer, Duration::ZERO)),
            Manner::Late(delay) => Some((answer, delay)),
            Manner::Never => None,
        }
    }

    pub(crate) fn authorize(&mut self, request: &Request) -> Result<Shown, Refused> {
        let Request { key, order_id, amount, token, .. } = request;
        let new = Held {
            order: Some(order_id.clone()),
            amount: *amount,
            token: token.clone(),
            decline_code: match Card::behind(token) {
                Card::Declined(code) => Some(code.to_owned()),
                _ => None,
            },
            voided: false,
        };
        let held = self.held.entry(key.clone()).or_insert_with(|| new.clone());
        if held.order.is_none() {
            *held = Held { voided: held.voided, decline_code: None, ..new };
        }
        let is_same = (held.order.as_ref(), held.amount, &held.token) == (Some(order_id), *amount, token);
        if is_same { self.show(key) } else { Err(Refused::KeyReused) }
    }

    pub(crate) fn capture(&mut self, authorization: &str, key: &str) -> Result<Shown, Refused> {
        let shown = self.show(authorization)?;
        let held = &self.held[authorization];
        match (shown.decline_code, Card::behind(&held.token)) {
            (Some(code), _) => Err(Refused::Declined(code)),
            _ if held.voided => Err(Refused::Voided),
            (None, Card::CaptureDeclined) => Err(Refused::Declined("card_declined".to_owned())),
            (None, _) => self.movement(authorization, key, true, held.amount),
        }
    }

    pub(crate) fn void(&mut self, authorization: &str) -> Result<Shown, Refused> {
        let never_held =
            || Held { order: None, amount: 0, token: String::new(), decline_code: None, voided: true };
        let held = self.held.entry(authorization.to_owned()).or_insert_with(never_held);
        if self
            .movements
            .values()
            .any(|movement| movement.is_capture && movement.authorization == authorization)
        {
            return Err(Refused::Captured);
        }
        held.voided = true;
        self.show(authorization)
    }

    pub(crate) fn refund(&mut self, authorization: &str, key: &str, amount: i64) -> Result<Shown, Refused> {
        let shown = self.show(authorization)?;
        if !self.movements.contains_key(key) && amount > shown.captured - shown.refunded {
            return Err(Refused::ExceedsCaptured);
        }
        self.movement(authorization, key, false, amount)
    }

    pub(crate) fn show(&self, authorization: &str) -> Result<Shown, Refused> {
        let held = self.held.get(authorization).ok_or(Refused::Unknown)?;
        let decline_code = held.decline_code.clone();
        let movements = self.movements.values().filter(|movement| movement.authorization == authorization);
        let (captures, refunds): (Vec<_>, Vec<_>) = movements.partition(|movement| movement.is_capture);
        let sum = |movements: &[&Movement]| movements.iter().map(|movement| movement.amount).sum();
        let times_captured = captures.len() as i64;
        let status = match (held.voided, times_captured) {
            (true, _) => "voided",
            (false, 0) if decline_code.is_some() => "declined",
            (false, 0) => "authorized",
            (false, _) => "captured",
        };
        Ok(Shown { status, decline_code, captured: sum(&captures), refunded: sum(&refunds), times_captured })
    }

    fn movement(
        &mut self,
        authorization: &str,
        key: &str,
        is_capture: bool,
        amount: i64,
    ) -> Result<Shown, Refused> {
        let movement = || Movement { authorization: authorization.to_owned(), is_capture, amount };
        self.movements.entry(key.to_owned()).or_insert_with(movement);
        self.show(authorization)
    }

    fn count(&mut self, card: Card, operation: Operation, key: &str) -> i64 {
        if !card.counts_calls() {
            return 1;
        }
        let calls = self.calls.entry((operation.as_str(), key.to_owned())).or_default();
        *calls += 1;
        *calls
    }
}

/// What an authorization says about itself, as payment-service's client reads it.
fn decided(shown: &Shown) -> Answer {
    match shown.status {
        "authorized" => Answer::Approved,
        "captured" => Answer::Captured,
        "voided" => Answer::Voided,
        _ => Answer::Declined(shown.decline_code.clone().unwrap_or_default()),
    }
}

fn status(shown: Result<Shown, Refused>, intent: Option<Intent>) -> Answer {
    match shown.as_ref().map(decided) {
        Err(_) => Answer::NotDone,
        Ok(Answer::Approved) if intent == Some(Intent::Capture) => Answer::NotDone,
        Ok(decided) => decided,
    }
}
