//! The card network, as this service sees it.
//!
//! Every operation has a key made of the payment's id and the operation, so that repeating one never
//! charges again. No answer is not a refusal: what happened is then learned by asking.

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::http::{Call, ExchangeError, Response, exchange};
use shared::idempotency;
use url::Url;
use uuid::Uuid;

use crate::domain::{Answer, Intent, Payment, Question, Refund};
use crate::store::Job;

/// Asks the card network.
#[derive(Debug, Clone)]
pub struct CardNetwork {
    base: String,
    time: Duration,
}

/// The fields of an authorization that this service uses.
#[derive(Deserialize)]
struct Authorization {
    status: AuthorizationStatus,
    #[serde(default)]
    decline_code: Option<String>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum AuthorizationStatus {
    Authorized,
    Declined,
    Captured,
    Voided,
}

/// Why it refused.
#[derive(Deserialize)]
struct Refused {
    code: String,
}

/// The key of what `payment` wants done.
pub fn key(payment: Uuid, operation: Intent) -> String {
    format!("{payment}-{}", operation.as_str())
}

impl CardNetwork {
    /// The card network at `url`; a question may take so long.
    pub fn new(url: &Url, time: Duration) -> Self {
        Self { base: url.as_str().trim_end_matches('/').to_owned(), time }
    }

    /// Asks what the job's payment wants to know.
    pub async fn ask(&self, job: &Job) -> Answer {
        let payment = &job.payment;
        let asked = match (payment.question(), &job.refund) {
            (Some(Question::Authorize), _) => self.authorize(job).await,
            (Some(Question::Capture), _) => self.capture(job).await,
            (Some(Question::Void), _) => self.void(job).await,
            (Some(Question::Refund), Some(refund)) => self.refund(job, refund).await,
            (Some(Question::Status), _) => self.status(job).await,
            (Some(Question::Refund), None) | (None, _) => {
                log::error!(payment = payment.id.to_string(); "a job has nothing to ask");
                Ok(Answer::Failed)
            }
        };
        asked.unwrap_or_else(|error| {
            log::info!(payment = payment.id.to_string(), error:%; "the card network gave no answer");
            match error {
                ExchangeError::Unreachable(_) => Answer::Failed,
                ExchangeError::Broken(_) | ExchangeError::TimedOut | ExchangeError::TooLarge => {
                    Answer::NoAnswer
                }
            }
        })
    }

    async fn authorize(&self, job: &Job) -> Result<Answer, ExchangeError> {
        let payment = &job.payment;
        let body = json!({
            "key": key(payment.id, Intent::Authorize),
            "order_id": payment.order_id,
            "amount": payment.amount.amount(),
            "currency": payment.amount.currency(),
            "token": payment.token,
        });
        let call = self.call(Method::POST, "/authorizations".to_owned(), job).json(body.to_string());
        Ok(match exchange(call).await? {
            answer if answer.status.is_success() => decided(&answer),
            answer => failed(&answer),
        })
    }

    async fn capture(&self, job: &Job) -> Result<Answer, ExchangeError> {
        let call = self.call(Method::POST, path(&job.payment, "/capture"), job);
        let call = call.header(idempotency::HEADER, key(job.payment.id, Intent::Capture));
        let answer = exchange(call).await?;
        Ok(match (answer.status, code(&answer)) {
            (status, _) if status.is_success() => Answer::Captured,
            (StatusCode::PAYMENT_REQUIRED, Some(code)) => Answer::CaptureDeclined(code),
            (StatusCode::CONFLICT, Some(code)) if code == "voided" => Answer::Voided,
            _ => failed(&answer),
        })
    }

    async fn void(&self, job: &Job) -> Result<Answer, ExchangeError> {
        let answer = exchange(self.call(Method::POST, path(&job.payment, "/void"), job)).await?;
        Ok(match (answer.status, code(&answer)) {
            (status, _) if status.is_success() => Answer::Voided,
            (StatusCode::CONFLICT, Some(code)) if code == "captured" => Answer::Captured,
            _ => failed(&answer),
        })
    }

    async fn refund(&self, job: &Job, refund: &Refund) -> Result<Answer, ExchangeError> {
        let body = json!({ "key": key(refund.id, Intent::Refund), "amount": refund.amount.amount() });
        let call = self.call(Method::POST, path(&job.payment, "/refunds"), job).json(body.to_string());
        let answer = exchange(call).await?;
        Ok(match answer.status {
            status if status.is_success() => Answer::RefundDone(refund.clone()),
            StatusCode::CONFLICT => Answer::RefundRefused(refund.clone()),
            _ => failed(&answer),
        })
    }

    /// What has it done of what it did not answer?
    async fn status(&self, job: &Job) -> Result<Answer, ExchangeError> {
        let answer = exchange(self.call(Method::GET, path(&job.payment, ""), job)).await?;
        Ok(match answer.status {
            StatusCode::NOT_FOUND => Answer::NotDone,
            StatusCode::OK => match (decided(&answer), job.payment.state.intent) {
                (Answer::Approved, Some(Intent::Capture)) => Answer::NotDone,
                (decided, _) => decided,
            },
            _ => failed(&answer),
        })
    }

    fn call(&self, method: Method, path: String, job: &Job) -> Call {
        let call = Call::new(method, format!("{}{path}", self.base), self.time);
        match &job.traceparent {
            Some(traceparent) => call.header("traceparent", traceparent.clone()),
            None => call,
        }
    }
}

fn path(payment: &Payment, operation: &str) -> String {
    format!("/authorizations/{}{operation}", key(payment.id, Intent::Authorize))
}

/// What an authorization says about itself.
fn decided(answer: &Response) -> Answer {
    let Ok(authorization) = serde_json::from_slice::<Authorization>(&answer.body) else {
        return failed(answer);
    };
    match authorization.status {
        AuthorizationStatus::Authorized => Answer::Approved,
        AuthorizationStatus::Declined => {
            Answer::Declined(authorization.decline_code.unwrap_or_else(|| "card_declined".to_owned()))
        }
        AuthorizationStatus::Captured => Answer::Captured,
        AuthorizationStatus::Voided => Answer::Voided,
    }
}

fn code(answer: &Response) -> Option<String> {
    serde_json::from_slice::<Refused>(&answer.body).ok().map(|refused| refused.code)
}

fn failed(answer: &Response) -> Answer {
    let body = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    log::info!(status = answer.status.as_u16(), body:%; "the card network could not do it");
    Answer::Failed
}
