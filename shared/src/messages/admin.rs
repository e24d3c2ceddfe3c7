//! Admin endpoints for the outbox, for the messages of a subject, for dead letters, and for the audit table.

use std::str::FromStr;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use uuid::Uuid;

use super::inbox::Inbox;
use super::waiting::Waiting;
use super::{Event, Outbox, backlog, dead_letters, rows};
use crate::audit;
use crate::auth::caller::authenticator;
use crate::auth::{Admin, Authenticator};
use crate::client::Context;
use crate::db::{DbError, Tx};
use crate::idempotency::{IdempotencyKey, Outcome, StoredResponse};
use crate::problem::{Problem, codes};
use crate::request::{Paging, Params, PathId};
use crate::service::resource;

pub(super) fn configure(app: &mut web::ServiceConfig) {
    app.service(resource("/admin/audit").get(acts))
        .service(resource("/admin/outbox").get(outbox))
        .service(resource("/admin/messages").get(messages))
        .service(resource("/admin/dead-letters").get(list))
        .service(resource("/admin/dead-letters/{id}").delete(discard))
        .service(resource("/admin/dead-letters/{id}/replay").post(replay));
}

async fn outbox(_: Admin, inbox: web::Data<Inbox>) -> Result<HttpResponse, Problem> {
    let Waiting { count, oldest_age_s } = backlog::outbox(inbox.db()).await?;
    Ok(HttpResponse::Ok().json(json!({ "pending": count, "oldest_age_s": oldest_age_s })))
}

/// The outbox rows of `subject`, and the inbox rows of the events `ids`. The inbox stores no subjects.
async fn messages(_: Admin, params: Params, inbox: web::Data<Inbox>) -> Result<HttpResponse, Problem> {
    let subject: Option<String> = params.optional("subject", "the subject of events")?;
    let ids: Ids = params.optional("ids", IDS)?.unwrap_or_default();
    let outbox = match subject {
        Some(subject) => rows::outbox(inbox.db(), &subject).await?,
        None => Vec::new(),
    };
    let inbox = rows::inbox(inbox.db(), inbox.service(), ids.0).await?;
    Ok(HttpResponse::Ok().json(json!({ "outbox": outbox, "inbox": inbox })))
}

/// Ids of events, separated by commas.
#[derive(Default)]
struct Ids(Vec<Uuid>);

const MAX_IDS: usize = 100;
const IDS: &str = "at most 100 ids of events, separated by commas";

impl FromStr for Ids {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let ids: Vec<_> = text.split(',').map(Uuid::try_parse).collect::<Result<_, _>>().map_err(drop)?;
        if ids.len() <= MAX_IDS { Ok(Self(ids)) } else { Err(()) }
    }
}

async fn list(_: Admin, inbox: web::Data<Inbox>) -> Result<HttpResponse, Problem> {
    let dead_letters = dead_letters::list(inbox.db()).await?;
    Ok(HttpResponse::Ok().json(json!({ "dead_letters": dead_letters })))
}

async fn discard(
    admin: Admin,
    id: PathId,
    context: Context,
    inbox: web::Data<Inbox>,
) -> Result<HttpResponse, Problem> {
    admin.0.require_recent_login()?;
    let discarded = inbox.db().transaction(async |tx| {
        let (destination, event) = take(tx, id.0).await?;
        Ok::<_, Problem>(record(tx, &admin, &context, dead_letters::DISCARD, &destination, &event).await?)
    });
    discarded.await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Replays a dead letter. An event of this service goes into the outbox again; a received event is handled now.
async fn replay(
    admin: Admin,
    id: PathId,
    key: IdempotencyKey,
    body: web::Bytes,
    request: HttpRequest,
    inbox: web::Data<Inbox>,
    outbox: web::Data<Outbox>,
) -> Result<Outcome<()>, Problem> {
    admin.0.require_recent_login()?;
    let authenticator = authenticator(&request)?;
    let context = Context::from_headers(request.headers());
    let claim = key.claim(Some(admin.0.id), &body)?;
    let replayed = claim.once(
        inbox.db(),
        |()| StoredResponse::no_content(),
        async |tx| {
            let (destination, event) = take(tx, id.0).await?;
            record(tx, &admin, &context, "dead_letter.replay", &destination, &event).await?;
            if destination == inbox.service() {
                must_be_listed(&authenticator, &event)?;
                inbox.replay(tx, &event).await.map_err(|error| super::http::problem(&error))?;
            } else {
                outbox.put(tx, &destination, event);
            }
            Ok(())
        },
    );
    replayed.await
}

async fn take(tx: &mut Tx, id: Uuid) -> Result<(String, Event), Problem> {
    dead_letters::take(tx, id).await?.ok_or_else(Problem::not_found)
}

/// Refuses a replay of an event that its source may not send. An admin cannot overrule the table of calls.
fn must_be_listed(authenticator: &Authenticator, event: &Event) -> Result<(), Problem> {
    if authenticator.lists(&event.source, &event.kind) {
        return Ok(());
    }
    let detail = format!("The table of calls does not let {} send {} here.", event.source, event.kind);
    Err(Problem::new(codes::FORBIDDEN, detail))
}

/// Writes the audit row. Its details describe the event, because a discarded event is deleted.
async fn record(
    tx: &mut Tx,
    admin: &Admin,
    context: &Context,
    action: &str,
    destination: &str,
    event: &Event,
) -> Result<(), DbError> {
    let details = json!({
        "destination": destination, "source": event.source, "type": event.kind, "subject": event.subject,
    });
    audit::record(tx, &admin.0, context, action, event.id, details).await
}

async fn acts(_: Admin, paging: Paging, inbox: web::Data<Inbox>) -> Result<HttpResponse, Problem> {
    let page = audit::page(inbox.db(), &paging).await?;
    Ok(HttpResponse::Ok().json(json!({ "acts": page.items, "next_cursor": page.next_cursor })))
}
