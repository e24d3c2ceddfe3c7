//! The HTTP client of the card network.
//!
//! The idempotency key of an operation is derived from the payment, so repeating a request never charges
//! twice. A missing response is not a refusal: a status query finds out what happened.

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::http::{Call, ExchangeError, Response, exchange};
use shared::idempotency;
use url::Url;
use uuid::Uuid;

use crate::domain::{Intent, NetworkRequest, NetworkResponse, Payment, Refund};
use crate::store::Job;

#[derive(Debug, Clone)]
pub struct CardNetwork {
    base: String,
    timeout: Duration,
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

#[derive(Deserialize)]
struct Refused {
    code: String,
}

/// `id` is that of the payment, or of the refund.
pub fn idempotency_key(id: Uuid, operation: Intent) -> String {
    format!("{id}-{}", operation.as_str())
}

impl CardNetwork {
    /// `timeout` is that of one request.
    pub fn new(url: &Url, timeout: Duration) -> Self {
        Self { base: url.as_str().trim_end_matches('/').to_owned(), timeout }
    }

    /// Sends the next request of the job's payment.
    pub async fn send(&self, job: &Job) -> NetworkResponse {
        let payment = &job.payment;
        let response = match (payment.next_request(), &job.refund) {
            (Some(NetworkRequest::Authorize), _) => self.authorize(job).await,
            (Some(NetworkRequest::Capture), _) => self.capture(job).await,
            (Some(NetworkRequest::Void), _) => self.void(job).await,
            (Some(NetworkRequest::Refund), Some(refund)) => self.refund(job, refund).await,
            (Some(NetworkRequest::Status), _) => self.status(job).await,
            (Some(NetworkRequest::Refund), None) | (None, _) => {
                log::error!(payment = payment.id.to_string(); "a job has no request");
                Ok(NetworkResponse::Failed)
            }
        };
        response.unwrap_or_else(|error| {
            log::info!(payment = payment.id.to_string(), error:%; "no response from the card network");
            match error {
                ExchangeError::Unreachable(_) | ExchangeError::Local(_) => NetworkResponse::Failed,
                ExchangeError::Broken(_) | ExchangeError::TimedOut | ExchangeError::TooLarge => {
                    NetworkResponse::Missing
                }
            }
        })
    }

    async fn authorize(&self, job: &Job) -> Result<NetworkResponse, ExchangeError> {
        let payment = &job.payment;
        let body = json!({
            "key": idempotency_key(payment.id, Intent::Authorize),
            "order_id": payment.order_id,
            "amount": payment.amount.amount(),
            "currency": payment.amount.currency().as_str(),
            "token": payment.token,
        });
        let call = self.call(Method::POST, "/authorizations".to_owned(), job).json(body.to_string());
        Ok(match exchange(call).await? {
            response if response.status.is_success() => authorization_status(&response),
            response => failed(&response),
        })
    }

    async fn capture(&self, job: &Job) -> Result<NetworkResponse, ExchangeError> {
        let call = self.call(Method::POST, path(&job.payment, "/capture"), job);
        let call = call.header(idempotency::HEADER, idempotency_key(job.payment.id, Intent::Capture));
        let response = exchange(call).await?;
        Ok(match (response.status, code(&response)) {
            (status, _) if status.is_success() => NetworkResponse::Captured,
            (StatusCode::PAYMENT_REQUIRED, Some(code)) => NetworkResponse::CaptureDeclined(code),
            (StatusCode::CONFLICT, Some(code)) if code == "voided" => NetworkResponse::Voided,
            _ => failed(&response),
        })
    }

    async fn void(&self, job: &Job) -> Result<NetworkResponse, ExchangeError> {
        let response = exchange(self.call(Method::POST, path(&job.payment, "/void"), job)).await?;
        Ok(match (response.status, code(&response)) {
            (status, _) if status.is_success() => NetworkResponse::Voided,
            (StatusCode::CONFLICT, Some(code)) if code == "captured" => NetworkResponse::Captured,
            _ => failed(&response),
        })
    }

    async fn refund(&self, job: &Job, refund: &Refund) -> Result<NetworkResponse, ExchangeError> {
        let key = idempotency_key(refund.id, Intent::Refund);
        let body = json!({ "key": key, "amount": refund.amount.amount() });
        let call = self.call(Method::POST, path(&job.payment, "/refunds"), job).json(body.to_string());
        let response = exchange(call).await?;
        Ok(match response.status {
            status if status.is_success() => NetworkResponse::RefundDone(refund.clone()),
            StatusCode::CONFLICT => NetworkResponse::RefundRefused(refund.clone()),
            _ => failed(&response),
        })
    }

    async fn status(&self, job: &Job) -> Result<NetworkResponse, ExchangeError> {
        let response = exchange(self.call(Method::GET, path(&job.payment, ""), job)).await?;
        Ok(match response.status {
            StatusCode::NOT_FOUND => NetworkResponse::NotExecuted,
            StatusCode::OK => match (authorization_status(&response), job.payment.state.intent) {
                (NetworkResponse::Approved, Some(Intent::Capture)) => NetworkResponse::NotExecuted,
                (status, _) => status,
            },
            _ => failed(&response),
        })
    }

    fn call(&self, method: Method, path: String, job: &Job) -> Call {
        let call = Call::new(method, format!("{}{path}", self.base), self.timeout);
        match &job.traceparent {
            Some(traceparent) => call.header("traceparent", traceparent.clone()),
            None => call,
        }
    }
}

fn path(payment: &Payment, operation: &str) -> String {
    format!("/authorizations/{}{operation}", idempotency_key(payment.id, Intent::Authorize))
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
    log::info!(status = response.status.as_u16(), body:%; "the card network failed");
    NetworkResponse::Failed
}
