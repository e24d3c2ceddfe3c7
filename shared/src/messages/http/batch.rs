//! Several events in a request, in the JSON batch format of CloudEvents.
//!
//! ```text
//! POST /messages                                            200 OK
//! content-type: application/cloudevents-batch+json    ──►   content-type: application/json
//! [{"id": …}, {"id": …}, {"id": …}]                   ◄──   [{"status": 204}, {"status": 204}, {"status": 422, "code": …, "detail": …}]
//! ```
//!
//! The answer has an item for each event, in the order of the batch: the status and the problem that the event would get in
//! a request of its own. The receiver hands all events to its inbox at once, which handles them in one transaction; a batch
//! with more events than fit into one gets 413. Events of one subject are an exception: the second waits until the first
//! has its result, and is not handled if the sender will send the first again.
//!
//! | answer to the whole batch | what the sender does |
//! |---|---|
//! | 200 | each event has its own result |
//! | none, or a status that says nothing about events, like 503 | all events are unavailable, and are sent again |
//! | 413 | sends two halves |
//! | any other, for example of a version that knows no batches | sends each event alone, and no batch for a minute |
//!
//! If the answer is lost, all events are sent again, and the inbox recognises them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{handle, rejected, result};
use crate::auth::calls::MESSAGES;
use crate::auth::{Authenticator, ServiceCaller};
use crate::body::BODY_LIMIT;
use crate::client::{ClientError, ServiceClient};
use crate::messages::inbox::{Delivery, Inbox, MAX_EVENTS};
use crate::messages::{Event, Outgoing, SendError, SendResult};
use crate::problem::Problem;
use crate::problem::codes::MESSAGE_REJECTED;
use crate::trace::{Current, SpanContext};

pub(super) const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";
/// An event that takes longer gets 503, so that the others have their results. The inbox drops it if it has not begun to
/// handle it.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// The result of one event of a batch.
#[derive(Debug, Serialize, Deserialize)]
struct Item {
    status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Why a batch as a whole has no results.
pub(super) enum BatchError {
    Unavailable(SendError),
    TooLarge,
    Refused(String),
}

/// Sends a batch. The results are in the order of its events.
pub(super) async fn post(
    receiver: &ServiceClient,
    batch: &[&Outgoing],
) -> Result<Vec<SendResult>, BatchError> {
    let events: Vec<_> = batch.iter().map(|outgoing| &outgoing.event).collect();
    let body = serde_json::to_string(&events).map_err(|error| BatchError::Refused(error.to_string()))?;
    if body.len() > BODY_LIMIT {
        return Err(BatchError::TooLarge);
    }
    let call = receiver.post(MESSAGES).json_text(body).content_type(CLOUD_EVENTS).idempotent();
    let answer = call.send().await.map_err(|error| match error {
        ClientError::Malformed(..) => BatchError::Refused(error.to_string()),
        _ => BatchError::Unavailable(SendError::Unavailable(error.to_string())),
    })?;
    if answer.status == StatusCode::PAYLOAD_TOO_LARGE {
        return Err(BatchError::TooLarge);
    }
    if let Err(error @ SendError::Unavailable(_)) = result(answer.status) {
        return Err(BatchError::Unavailable(error));
    }
    let items = match answer.status {
        StatusCode::OK => answer.json::<Vec<Item>>().unwrap_or_default(),
        _ => Vec::new(),
    };
    match items.len() == batch.len() {
        true => Ok(items.iter().map(Item::result).collect()),
        false => Err(BatchError::Refused(answer.status.to_string())),
    }
}

/// Handles a batch of `caller`.
pub(super) async fn receive(
    authenticator: &Authenticator,
    caller: &ServiceCaller,
    inbox: &Arc<Inbox>,
    body: &[u8],
) -> Result<HttpResponse, Problem> {
    let (mut items, mut subjects) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    let events = parse(body)?;
    if events.len() > MAX_EVENTS {
        return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    for (place, event) in events.into_iter().enumerate() {
        match event {
            Ok(event) => subjects.entry(event.subject.clone()).or_default().push((place, Arc::new(event))),
            Err(error) => {
                log::warn!(error:%; "an item of a batch is not a CloudEvent");
                items.push((place, Item::of(Err(rejected("This is not a CloudEvent.")))));
            }
        }
    }
    let deadline = Instant::now() + ANSWER_TIME;
    let subjects = subjects.into_values().map(async |events| {
        let (mut items, mut is_blocked) = (Vec::with_capacity(events.len()), false);
        for (place, event) in events {
            let unavailable = || Err(Problem::unavailable(1));
            let result = match is_blocked {
                true => unavailable(),
                false => {
                    let handling = handle(authenticator, caller, inbox, &event, Delivery { attempt: 1 });
                    timeout_at(deadline, handling).await.unwrap_or_else(|_| unavailable())
                }
            };
            if let Err(problem) = &result {
                let error = problem.cause().unwrap_or(problem.detail());
                log::warn!(message_type = event.kind, message_id = event.id.to_string(), error; "a message was not handled");
                // The sender makes a rejected event a dead letter, and sends all others again.
                is_blocked = problem.code() != MESSAGE_REJECTED.name();
            }
            items.push((place, Item::of(result)));
        }
        items
    });
    // Each event brings its own request id.
    let context = Current::new(None, Current::span().unwrap_or(SpanContext::NONE));
    items.extend(context.scope(join_all(subjects)).await.into_iter().flatten());
    items.sort_by_key(|(place, _)| *place);
    Ok(HttpResponse::Ok().json(items.into_iter().map(|(_, item)| item).collect::<Vec<_>>()))
}

/// The events of a batch. An item that is no event does not affect the others.
fn parse(body: &[u8]) -> Result<Vec<Result<Event, serde_json::Error>>, Problem> {
    if let Ok(events) = serde_json::from_slice::<Vec<Event>>(body) {
        return Ok(events.into_iter().map(Ok).collect());
    }
    let items: Vec<Value> = serde_json::from_slice(body)
        .map_err(|error| rejected("The body is not a batch of CloudEvents.").because(&error))?;
    Ok(items.into_iter().map(serde_json::from_value).collect())
}

impl Item {
    fn of(result: Result<(), Problem>) -> Self {
        match result {
            Ok(()) => Self { status: StatusCode::NO_CONTENT.as_u16(), code: None, detail: None },
            Err(problem) => {
                let (code, detail) = (problem.code().to_owned(), problem.detail().to_owned());
                Self { status: problem.status().as_u16(), code: Some(code), detail: Some(detail) }
            }
        }
    }

    fn result(&self) -> SendResult {
        result(StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
    }
}
