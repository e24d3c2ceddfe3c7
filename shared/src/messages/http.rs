//! Transport over HTTP: pushes events to a healthy replica of the receiver, one in a request or several.

mod batch; // several events in a request

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use async_trait::async_trait;
use futures_util::future::join;
use futures_util::{StreamExt as _, stream};

use self::batch::{BatchError, CLOUD_EVENTS};
use super::inbox::{Delivery, HandleError, Inbox, MAX_EVENTS};
use super::{Event, Outgoing, SendError, SendResult, Transport};
use crate::auth::caller::authenticator;
use crate::auth::calls::MESSAGES;
use crate::auth::{Authenticator, ServiceCaller, TokenError};
use crate::client::{ClientError, ServiceClient};
use crate::platform::Platform;
use crate::problem::{Problem, codes};
use crate::service::resource;

pub(super) const CLOUD_EVENT: &str = "application/cloudevents+json";
const ATTEMPT: &str = "x-message-attempt";
/// How long a receiver that has refused a batch gets none.
const BATCH_PAUSE: Duration = Duration::from_secs(60);
/// Concurrent requests of a batch that was refused.
const MAX_ALONE: usize = 8;

/// Pushes events to `POST /messages` of the receivers.
pub struct HttpTransport(BTreeMap<String, Receiver>);

struct Receiver {
    client: ServiceClient,
    /// When the receiver refused a batch: its version may not know batches.
    refused_batch: Cell<Option<Instant>>,
}

impl HttpTransport {
    /// `destinations` are the services that can receive.
    pub fn new(platform: &Platform, destinations: &[&str]) -> Self {
        let receiver = |name| Receiver { client: platform.client(name), refused_batch: Cell::default() };
        Self(destinations.iter().map(|name| ((*name).to_owned(), receiver(name))).collect())
    }

    async fn send_each(&self, batch: &[&Outgoing]) -> Vec<SendResult> {
        stream::iter(batch).map(|outgoing| self.send(outgoing)).buffered(MAX_ALONE).collect().await
    }

    async fn send_halves(&self, batch: &[&Outgoing]) -> Vec<SendResult> {
        let (one, other) = batch.split_at(batch.len() / 2);
        let (one, other) = join(self.send_batch(one), self.send_batch(other)).await;
        [one, other].concat()
    }
}

#[async_trait(?Send)]
impl Transport for HttpTransport {
    async fn send(&self, outgoing: &Outgoing) -> SendResult {
        let Outgoing { destination, event, attempts, .. } = outgoing;
        let Some(Receiver { client, .. }) = self.0.get(destination) else {
            return Err(SendError::Rejected(format!("{destination} is not a receiver")));
        };
        let call = client.post(MESSAGES).json(event).content_type(CLOUD_EVENT).idempotent();
        let call = call.context(&event.context()).header(ATTEMPT, (attempts + 1).to_string());
        match call.send().await {
            Ok(answer) => result(answer.status),
            Err(error @ ClientError::Malformed(..)) => Err(SendError::Failed(error.to_string())),
            Err(error) => Err(SendError::Unavailable(error.to_string())),
        }
    }

    fn max_batch(&self, destination: &str) -> usize {
        let refused = self.0.get(destination).and_then(|receiver| receiver.refused_batch.get());
        if refused.is_some_and(|then| then.elapsed() < BATCH_PAUSE) { 1 } else { MAX_EVENTS }
    }

    async fn send_batch(&self, batch: &[&Outgoing]) -> Vec<SendResult> {
        let receiver = batch.first().and_then(|first| self.0.get(&first.destination));
        let (Some(Receiver { client, refused_batch }), [_, _, ..]) = (receiver, batch) else {
            return self.send_each(batch).await;
        };
        match batch::post(client, batch).await {
            Ok(results) => results,
            Err(BatchError::Unavailable(error)) => vec![Err(error); batch.len()],
            Err(BatchError::TooLarge) => self.send_halves(batch).await,
            Err(BatchError::Refused(why)) => {
                log::info!(destination = client.service(), error = why; "a batch of events was refused: each is sent alone");
                refused_batch.set(Some(Instant::now()));
                self.send_each(batch).await
            }
        }
    }
}

/// What the status of a response means for the event.
fn result(status: StatusCode) -> SendResult {
    match status.as_u16() {
        200..=299 => Ok(()),
        // These statuses do not mean that the event is invalid. The receiver may have another version, older keys or
        // another clock, or another program may listen at its address.
        401 | 403 | 404 | 409 | 429 | 502..=504 => Err(SendError::Unavailable(status.to_string())),
        400 | 413 | 422 => Err(SendError::Rejected(status.to_string())),
        _ => Err(SendError::Failed(status.to_string())),
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
    let authenticator = authenticator(&request)?;
    if request.content_type().eq_ignore_ascii_case(CLOUD_EVENTS) {
        return batch::receive(&authenticator, &caller, &inbox, &body).await;
    }
    let event: Event = serde_json::from_slice(&body)
        .map_err(|error| rejected("The body is not a CloudEvent.").because(&error))?;
    let attempt = request.headers().get(ATTEMPT).and_then(|value| value.to_str().ok());
    let delivery = Delivery { attempt: attempt.and_then(|attempt| attempt.parse().ok()).unwrap_or(1) };
    handle(&authenticator, &caller, &inbox, &Arc::new(event), delivery).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Handles an event if `caller` may send it.
async fn handle(
    authenticator: &Authenticator,
    caller: &ServiceCaller,
    inbox: &Arc<Inbox>,
    event: &Arc<Event>,
    delivery: Delivery,
) -> Result<(), Problem> {
    if !authenticator.accepts(caller, &event.source, &event.kind) {
        return Err(TokenError::Forbidden.problem());
    }
    let received = inbox.receive(event, delivery).await.map_err(|error| problem(&error))?;
    log::debug!(message_type = event.kind, message_id = event.id.to_string(), outcome:? = received; "a message was handled");
    Ok(())
}

/// The response to the sender if the event had no effect.
pub(super) fn problem(error: &HandleError) -> Problem {
    match error {
        HandleError::UnknownType | HandleError::Rejected(_) => {
            rejected("The event cannot be handled.").because(error)
        }
        HandleError::Retry => Problem::unavailable(1).because(error),
        HandleError::Timeout => Problem::internal().because(error),
        HandleError::Db(error) => error.problem(),
    }
}

fn rejected(detail: &str) -> Problem {
    Problem::new(codes::MESSAGE_REJECTED, detail)
}
