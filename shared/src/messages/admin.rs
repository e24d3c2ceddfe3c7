//! Admin endpoints for the outbox and for dead letters.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::inbox::Inbox;
use super::waiting::Waiting;
use super::{Outbox, backlog, dead_letters};
use crate::auth::Admin;
use crate::idempotency::{Answer, IdempotencyKey, Outcome};
use crate::problem::Problem;
use crate::request::PathId;
use crate::service::resource;

pub(super) fn configure(app: &mut web::ServiceConfig) {
    app.service(resource("/admin/outbox").get(outbox))
        .service(resource("/admin/dead-letters").get(list))
        .service(resource("/admin/dead-letters/{id}").delete(discard))
        .service(resource("/admin/dead-letters/{id}/replay").post(replay));
}

async fn outbox(_: Admin, inbox: web::Data<Inbox>) -> Result<HttpResponse, Problem> {
    let Waiting { count, oldest_age_s } = backlog::outbox(inbox.db()).await?;
    Ok(HttpResponse::Ok().json(json!({ "pending": count, "oldest_age_s": oldest_age_s })))
}

async fn list(_: Admin, inbox: web::Data<Inbox>) -> Result<HttpResponse, Problem> {
    let dead_letters = dead_letters::list(inbox.db()).await?;
    Ok(HttpResponse::Ok().json(json!({ "dead_letters": dead_letters })))
}

async fn discard(_: Admin, id: PathId, inbox: web::Data<Inbox>) -> Result<HttpResponse, Problem> {
    let mut tx = inbox.db().begin().await?;
    dead_letters::take(&mut tx, id.0).await?.ok_or_else(Problem::not_found)?;
    tx.commit().await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Puts a dead letter of this sender into the outbox again; handles one that this service received.
async fn replay(
    admin: Admin,
    id: PathId,
    key: IdempotencyKey,
    body: web::Bytes,
    inbox: web::Data<Inbox>,
    outbox: web::Data<Outbox>,
) -> Result<Outcome<()>, Problem> {
    let claim = key.claim(Some(admin.0.id), &body)?;
    let replayed = claim.once(
        inbox.db(),
        |()| Answer::no_content(),
        async |tx| {
            let taken = dead_letters::take(tx, id.0).await?;
            let (destination, event) = taken.ok_or_else(Problem::not_found)?;
            if destination == inbox.service() {
                inbox.replay(tx, &event).await.map_err(|error| super::http::problem(&error))?;
            } else {
                outbox.put(tx, &destination, event).await?;
            }
            Ok(())
        },
    );
    replayed.await
}
