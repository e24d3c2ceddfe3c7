//! Transport over HTTP: pushes events to a healthy replica of the receiver.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use async_trait::async_trait;

use super::inbox::{Delivery, HandleError, Inbox};
use super::{Event, Outgoing, SendError, Transport};
use crate::auth::caller::authenticator;
use crate::auth::calls::MESSAGES;
use crate::auth::{ServiceCaller, TokenError};
use crate::client::{ClientError, ServiceClient};
use crate::platform::Platform;
use crate::problem::{Problem, codes};
use crate::service::resource;

pub(super) const CLOUD_EVENT: &str = "application/cloudevents+json";
const ATTEMPT: &str = "x-message-attempt";

/// Pushes events to `POST /messages` of the receivers.
pub struct HttpTransport(BTreeMap<String, ServiceClient>);

impl HttpTransport {
    /// `destinations` are the services that can receive.
    pub fn new(platform: &Platform, destinations: &[&str]) -> Self {
        Self(destinations.iter().map(|name| ((*name).to_owned(), platform.client(name))).collect())
    }
}

#[async_trait(?Send)]
impl Transport for HttpTransport {
    async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
        let Outgoing { destination, event, attempts, .. } = outgoing;
        let Some(receiver) = self.0.get(destination) else {
            return Err(SendError::Rejected(format!("{destination} is not a receiver")));
        };
        let call = receiver.post(MESSAGES).json(event).content_type(CLOUD_EVENT).repeatable();
        let call = call.context(&event.context()).header(ATTEMPT, (attempts + 1).to_string());
        match call.send().await {
            Ok(answer) => match answer.status.as_u16() {
                200..=299 => Ok(()),
                // These statuses do not mean that the event is invalid. The receiver may have another version, older
                // keys or another clock, or another program may listen at its address.
                401 | 403 | 404 | 409 | 429 | 502..=504 => {
                    Err(SendError::Unavailable(answer.status.to_string()))
                }
                400 | 413 | 422 => Err(SendError::Rejected(answer.status.to_string())),
                _ => Err(SendError::Failed(answer.status.to_string())),
            },
            Err(error @ ClientError::Malformed(..)) => Err(SendError::Failed(error.to_string())),
            Err(error) => Err(SendError::Unavailable(error.to_string())),
        }
    }
}

pub(super) fn configure(app: &mut web::ServiceConfig) {
    app.service(resource(MESSAGES).post(receive));
}

async fn receive(
    caller: ServiceCaller,
    request: HttpRequest,
    inbox: web::Data<Inbox>,
    body: web::Bytes,
) -> Result<HttpResponse, Problem> {
    let event: Arc<Event> = serde_json::from_slice(&body)
        .map(Arc::new)
        .map_err(|error| rejected("The body is not a CloudEvent.").because(&error))?;
    if !authenticator(&request)?.accepts(&caller, &event.source, &event.kind) {
        return Err(TokenError::Forbidden.problem());
    }
    let attempt = request.headers().get(ATTEMPT).and_then(|value| value.to_str().ok());
    let delivery = Delivery { attempt: attempt.and_then(|attempt| attempt.parse().ok()).unwrap_or(1) };
    match inbox.receive(&event, delivery).await {
        Ok(received) => {
            log::debug!(message_type = event.kind, message_id = event.id.to_string(), outcome:? = received; "a message arrived");
            Ok(HttpResponse::NoContent().finish())
        }
        Err(error) => Err(problem(&error)),
    }
}

/// The response to the sender if the event had no effect.
pub(super) fn problem(error: &HandleError) -> Problem {
    match error {
        HandleError::UnknownType | HandleError::Rejected(_) => {
            rejected("The event cannot be handled.").because(error)
        }
        HandleError::Retry => Problem::unavailable(1).because(error),
        HandleError::Db(error) => error.problem(),
    }
}

fn rejected(detail: &str) -> Problem {
    Problem::new(codes::MESSAGE_REJECTED, detail)
}
