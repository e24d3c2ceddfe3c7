//! The card network. It uses the real cards and a model of the store. A test compares the model with the real
//! store.

use std::collections::BTreeMap;
use std::time::Duration;

use payment_service::card_network::cards::{Behaviour, Card, Operation};
use payment_service::card_network::error::Error;
use payment_service::card_network::store::AuthorizationRequest;
use payment_service::clients::card_network::idempotency_key;
use payment_service::domain::{Intent, NetworkRequest, NetworkResponse};
use payment_service::store::Job;

#[derive(Default)]
pub(crate) struct Network {
    pub(crate) is_down: bool,
    held: BTreeMap<String, Held>,
    /// Captures and refunds by their idempotency key.
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

/// An authorization in an answer of the card network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) status: &'static str,
    pub(crate) decline_code: Option<String>,
    pub(crate) captured: i64,
    pub(crate) refunded: i64,
    pub(crate) times_captured: i64,
}

impl Network {
    /// Executes the request of a job. Returns the response and its delay, or none if there is no response.
    pub(crate) fn respond(&mut self, job: &Job) -> Option<(NetworkResponse, Duration)> {
        let payment = &job.payment;
        let authorization = idempotency_key(payment.id, Intent::Authorize);
        let wanted = payment.next_request()?;
        let (operation, operation_key) = match wanted {
            NetworkRequest::Authorize => (Operation::Authorize, authorization.clone()),
            NetworkRequest::Capture => (Operation::Capture, authorization.clone()),
            NetworkRequest::Void => (Operation::Void, authorization.clone()),
            NetworkRequest::Refund => {
                (Operation::Refund, idempotency_key(job.refund.as_ref()?.id, Intent::Refund))
            }
            NetworkRequest::Status => {
                return Some((status(self.show(&authorization), payment.state.intent), Duration::ZERO));
            }
        };
        let token = match wanted {
            NetworkRequest::Authorize => payment.token.as_deref(),
            _ => self.held.get(&authorization).map(|held| held.token.as_str()),
        };
        let behaviour = match token.map(Card::from_token) {
            None => Behaviour::Prompt,
            Some(card) => card.behaviour(operation, self.count(card, operation, &operation_key)),
        };
        if let Behaviour::Failing(_) | Behaviour::InProgress = behaviour {
            return Some((NetworkResponse::Failed, Duration::ZERO));
        }
        let answer = match wanted {
            NetworkRequest::Authorize => {
                let request = AuthorizationRequest {
                    key: authorization,
                    order_id: payment.order_id.to_string(),
                    amount: payment.amount.amount(),
                    currency: "EUR".to_owned(),
                    token: payment.token.clone()?,
                };
                self.authorize(&request).map_or(NetworkResponse::Failed, |shown| decided(&shown))
            }
            NetworkRequest::Capture => {
                match self.capture(&authorization, &idempotency_key(payment.id, Intent::Capture)) {
                    Ok(_) => NetworkResponse::Captured,
                    Err(Error::Declined(code)) => NetworkResponse::CaptureDeclined(code),
                    Err(Error::Voided) => NetworkResponse::Voided,
                    Err(_) => NetworkResponse::Failed,
                }
            }
            NetworkRequest::Void => match self.void(&authorization) {
                Ok(_) => NetworkResponse::Voided,
                Err(Error::Captured) => NetworkResponse::Captured,
                Err(_) => NetworkResponse::Failed,
            },
            NetworkRequest::Refund => {
                let refund = job.refund.clone()?;
                match self.refund(&authorization, &operation_key, refund.amount.amount()) {
                    Ok(_) => NetworkResponse::RefundDone(refund),
                    Err(Error::ExceedsCaptured) => NetworkResponse::RefundRefused(refund),
                    Err(_) => NetworkResponse::Failed,
                }
            }
            NetworkRequest::Status => return None,
        };
        match behaviour {
            Behaviour::Prompt | Behaviour::Failing(_) | Behaviour::InProgress => {
                Some((answer, Duration::ZERO))
            }
            Behaviour::Delayed(delay) => Some((answer, delay)),
            Behaviour::Silent => None,
        }
    }

    pub(crate) fn authorize(&mut self, request: &AuthorizationRequest) -> Result<Shown, Error> {
        let AuthorizationRequest { key, order_id, amount, token, .. } = request;
        let new = Held {
            order: Some(order_id.clone()),
            amount: *amount,
            token: token.clone(),
            decline_code: match Card::from_token(token) {
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
        if is_same { self.show(key) } else { Err(Error::KeyReused) }
    }

    pub(crate) fn capture(&mut self, authorization: &str, key: &str) -> Result<Shown, Error> {
        let shown = self.show(authorization)?;
        let held = &self.held[authorization];
        match (shown.decline_code, Card::from_token(&held.token)) {
            (Some(code), _) => Err(Error::Declined(code)),
            _ if held.voided => Err(Error::Voided),
            (None, Card::CaptureDeclined) => Err(Error::Declined("card_declined".to_owned())),
            (None, _) => self.movement(authorization, key, true, held.amount),
        }
    }

    pub(crate) fn void(&mut self, authorization: &str) -> Result<Shown, Error> {
        let never_held =
            || Held { order: None, amount: 0, token: String::new(), decline_code: None, voided: true };
        let held = self.held.entry(authorization.to_owned()).or_insert_with(never_held);
        if self
            .movements
            .values()
            .any(|movement| movement.is_capture && movement.authorization == authorization)
        {
            return Err(Error::Captured);
        }
        held.voided = true;
        self.show(authorization)
    }

    pub(crate) fn refund(&mut self, authorization: &str, key: &str, amount: i64) -> Result<Shown, Error> {
        let shown = self.show(authorization)?;
        if !self.movements.contains_key(key) && amount > shown.captured - shown.refunded {
            return Err(Error::ExceedsCaptured);
        }
        self.movement(authorization, key, false, amount)
    }

    pub(crate) fn show(&self, authorization: &str) -> Result<Shown, Error> {
        let held = self.held.get(authorization).ok_or(Error::NotFound)?;
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
    ) -> Result<Shown, Error> {
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

/// The response that payment-service's client reads from an authorization.
fn decided(shown: &Shown) -> NetworkResponse {
    match shown.status {
        "authorized" => NetworkResponse::Approved,
        "captured" => NetworkResponse::Captured,
        "voided" => NetworkResponse::Voided,
        _ => NetworkResponse::Declined(shown.decline_code.clone().unwrap_or_default()),
    }
}

fn status(shown: Result<Shown, Error>, intent: Option<Intent>) -> NetworkResponse {
    match shown.as_ref().map(decided) {
        Err(_) => NetworkResponse::NotExecuted,
        Ok(NetworkResponse::Approved) if intent == Some(Intent::Capture) => NetworkResponse::NotExecuted,
        Ok(decided) => decided,
    }
}
