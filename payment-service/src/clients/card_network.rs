//! The HTTP client of the card network.
//!
//! Each authorization, capture and refund has an idempotency key, so a repeated request moves no money twice. A void
//! needs no key: it is idempotent. A missing response is not a refusal. After an authorization or a capture, a status
//! query finds out what happened. A void or a refund is sent again.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::http::{Call, ExchangeError, Response, exchange};
use shared::idempotency;
use shared::trace::{Span, SpanKind};
use url::Url;
use uuid::Uuid;

use crate::config::CARD_NETWORK;
use crate::domain::{Charge, Intent, NetworkRequest, NetworkResponse, Payment, Refund};
use crate::store::Job;

#[derive(Debug, Clone)]
pub struct CardNetwork {
    base: String,
    timeout: Duration,
}

/// A response, and what the card network says of the charge in it.
#[derive(Debug)]
pub struct Answer {
    pub response: NetworkResponse,
    pub charge: Option<Charge>,
}

#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("the card network answered {0}")]
    Refused(StatusCode),
    #[error("the statement cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// The fields of an authorization that this service uses.
#[derive(Deserialize)]
struct Authorization {
    status: AuthorizationStatus,
    #[serde(default)]
    decline_code: Option<String>,
}

/// The figures of an authorization.
#[derive(Deserialize)]
struct Figures {
    status: AuthorizationStatus,
    amount: i64,
    currency: String,
    captured: i64,
    refunded: i64,
}

#[derive(Deserialize)]
struct Statement {
    charges: Vec<StatementLine>,
}

#[derive(Deserialize)]
struct StatementLine {
    key: String,
    currency: String,
    authorized: i64,
    captured: i64,
    refunded: i64,
    voided: bool,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum AuthorizationStatus {
    Authorized,
    Declined,
    Captured,
    Voided,
}

#[derive(Deserialize)]
struct Refused {
    code: String,
}

/// `id` is that of the payment, or of the refund.
pub fn idempotency_key(id: Uuid, operation: Intent) -> String {
    format!("{id}-{}", operation.as_str())
}

/// The key of a payment's charge in the statement.
pub fn charge_key(payment: Uuid) -> String {
    idempotency_key(payment, Intent::Authorize)
}

/// The payment of a charge, if it is one of ours.
pub fn payment_of(key: &str) -> Option<Uuid> {
    key.get(..36)?.parse().ok().filter(|payment| charge_key(*payment) == key)
}

impl CardNetwork {
    /// `timeout` is that of one request.
    pub fn new(url: &Url, timeout: Duration) -> Self {
        Self { base: url.as_str().trim_end_matches('/').to_owned(), timeout }
    }

    /// The first `limit` charges whose keys are above `after`, by key.
    pub async fn statement(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<BTreeMap<String, Charge>, StatementError> {
        let mut range = url::form_urlencoded::Serializer::new(String::new());
        range.append_pair("limit", &limit.to_string()).extend_pairs(after.map(|key| ("after", key)));
        let url = format!("{}/statement?{}", self.base, range.finish());
        let response = exchange(Call::new(Method::GET, url, self.timeout)).await?;
        if response.status != StatusCode::OK {
            return Err(StatementError::Refused(response.status));
        }
        Ok(response.json::<Statement>()?.charges.into_iter().map(StatementLine::into).collect())
    }

    /// Sends the next request of the job's payment.
    pub async fn send(&self, job: &Job) -> Answer {
        let payment = &job.payment;
        let response = match (payment.next_request(), &job.refund) {
            (Some(NetworkRequest::Authorize), _) => self.authorize(job).await,
            (Some(NetworkRequest::Capture), _) => self.capture(job).await,
            (Some(NetworkRequest::Void), _) => self.void(job).await,
            (Some(NetworkRequest::Refund), Some(refund)) => self.refund(job, refund).await,
            (Some(NetworkRequest::Status), _) => self.status(job).await,
            (Some(NetworkRequest::Refund), None) | (None, _) => {
                log::error!(payment_id = payment.id.to_string(); "a job has no request");
                return Answer { response: NetworkResponse::Failed, charge: None };
            }
        };
        response.unwrap_or_else(|error| {
            log::info!(payment_id = payment.id.to_string(), error:%; "no response from the card network");
            let response = match error {
                ExchangeError::Unreachable(_) | ExchangeError::Local(_) => NetworkResponse::Failed,
                ExchangeError::Broken(_) | ExchangeError::TimedOut | ExchangeError::TooLarge => {
                    NetworkResponse::Missing
                }
            };
            Answer { response, charge: None }
        })
    }

    async fn authorize(&self, job: &Job) -> Result<Answer, ExchangeError> {
        let payment = &job.payment;
        let body = json!({
            "key": charge_key(payment.id),
            "order_id": payment.order_id,
            "amount": payment.amount.amount(),
            "currency": payment.amount.currency().as_str(),
            "token": payment.token,
        });
        let call = self.call(Method::POST, "/authorizations".to_owned(), job).json(body.to_string());
        let response = exchange(call).await?;
        let answered = match response.status {
            status if status.is_success() => authorization_status(&response),
            _ => failed(&response),
        };
        Ok(answer(&response, answered))
    }

    async fn capture(&self, job: &Job) -> Result<Answer, ExchangeError> {
        let call = self.call(Method::POST, path(&job.payment, "/capture"), job);
        let call = call.header(idempotency::HEADER, idempotency_key(job.payment.id, Intent::Capture));
        let response = exchange(call).await?;
        let answered = match (response.status, code(&response)) {
            (status, _) if status.is_success() => NetworkResponse::Captured,
            (StatusCode::PAYMENT_REQUIRED, Some(code)) => NetworkResponse::CaptureDeclined(code),
            (StatusCode::CONFLICT, Some(code)) if code == "voided" => NetworkResponse::Voided,
            _ => failed(&response),
        };
        Ok(answer(&response, answered))
    }

    async fn void(&self, job: &Job) -> Result<Answer, ExchangeError> {
        let response = exchange(self.call(Method::POST, path(&job.payment, "/void"), job)).await?;
        let answered = match (response.status, code(&response)) {
            (status, _) if status.is_success() => NetworkResponse::Voided,
            (StatusCode::CONFLICT, Some(code)) if code == "captured" => NetworkResponse::Captured,
            _ => failed(&response),
        };
        Ok(answer(&response, answered))
    }

    async fn refund(&self, job: &Job, refund: &Refund) -> Result<Answer, ExchangeError> {
        let key = idempotency_key(refund.id, Intent::Refund);
        let body = json!({ "key": key, "amount": refund.amount.amount() });
        let call = self.call(Method::POST, path(&job.payment, "/refunds"), job).json(body.to_string());
        let response = exchange(call).await?;
        let answered = match (response.status, code(&response)) {
            (status, _) if status.is_success() => NetworkResponse::RefundDone(refund.clone()),
            // Final. Other conflicts pass, for example another request with the same key.
            (StatusCode::CONFLICT, Some(code)) if code == "exceeds_captured" => {
                NetworkResponse::RefundRefused(refund.clone())
            }
            _ => failed(&response),
        };
        Ok(answer(&response, answered))
    }

    async fn status(&self, job: &Job) -> Result<Answer, ExchangeError> {
        let response = exchange(self.call(Method::GET, path(&job.payment, ""), job)).await?;
        let answered = match response.status {
            StatusCode::NOT_FOUND => NetworkResponse::NotExecuted,
            StatusCode::OK => match (authorization_status(&response), job.payment.state.intent) {
                (NetworkResponse::Approved, Some(Intent::Capture)) => NetworkResponse::NotExecuted,
                (status, _) => status,
            },
            _ => failed(&response),
        };
        Ok(answer(&response, answered))
    }

    /// Starts a call in the trace of the job.
    fn call(&self, method: Method, path: String, job: &Job) -> Call {
        let mut span = Span::child(SpanKind::Client, "HTTP");
        span.record(|span| {
            span.set("peer.service", CARD_NETWORK);
            span.set("payment.id", job.payment.id.to_string());
            span.set("http.request.resend_count", job.payment.attempts);
        });
        Call::new(method, format!("{}{path}", self.base), self.timeout).traced(span)
    }
}

fn path(payment: &Payment, operation: &str) -> String {
    format!("/authorizations/{}{operation}", charge_key(payment.id))
}

/// Adds the figures of the response, if it has any.
fn answer(response: &Response, answered: NetworkResponse) -> Answer {
    let figures = response.json::<Figures>().ok().filter(|_| response.status.is_success());
    Answer { response: answered, charge: figures.map(Figures::into) }
}

impl From<Figures> for Charge {
    fn from(Figures { status, amount, currency, captured, refunded }: Figures) -> Self {
        let authorized = if status == AuthorizationStatus::Declined { 0 } else { amount };
        Self { currency, authorized, captured, refunded, voided: status == AuthorizationStatus::Voided }
    }
}

impl From<StatementLine> for (String, Charge) {
    fn from(line: StatementLine) -> Self {
        let StatementLine { key, currency, authorized, captured, refunded, voided } = line;
        (key, Charge { currency, authorized, captured, refunded, voided })
    }
}

fn authorization_status(response: &Response) -> NetworkResponse {
    let Ok(authorization) = serde_json::from_slice::<Authorization>(&response.body) else {
        return failed(response);
    };
    match authorization.status {
        AuthorizationStatus::Authorized => NetworkResponse::Approved,
        AuthorizationStatus::Declined => {
            let code = authorization.decline_code.unwrap_or_else(|| "card_declined".to_owned());
            NetworkResponse::Declined(code)
        }
        AuthorizationStatus::Captured => NetworkResponse::Captured,
        AuthorizationStatus::Voided => NetworkResponse::Voided,
    }
}

fn code(response: &Response) -> Option<String> {
    serde_json::from_slice::<Refused>(&response.body).ok().map(|refused| refused.code)
}

fn failed(response: &Response) -> NetworkResponse {
    let body = serde_json::from_slice::<Value>(&response.body).unwrap_or_default();
    log::info!(status = response.status.as_u16(), body:%; "the card network responded with an error");
    NetworkResponse::Failed
}
