//! `POST /api/things`: adds one for the caller, once per idempotency key.

use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::web::Data;
use shared::auth::Caller;
use shared::body::Body;
use shared::idempotency::{IdempotencyKey, Outcome, StoredResponse};
use shared::request::etag;
use utoipa::ToSchema;

use crate::domain::{Name, Thing};
use crate::error::Error;
use crate::store::Store;
use crate::views::ThingView;

#[derive(ToSchema)]
pub(crate) struct AddThing {
    /// 1 to 100 characters.
    #[schema(value_type = String, min_length = 1, max_length = 100)]
    name: Name,
}

shared::from_body! { AddThing { required: name; } }

#[utoipa::path(post, path = "/api/things", tag = "things", security(("user" = [])), request_body = AddThing,
    params(("Idempotency-Key" = String, Header, description = "Sent twice, it happens once.")),
    responses((status = 201, body = ThingView), (status = 422, description = "`validation_failed`")))]
pub(crate) async fn add_thing(
    caller: Caller,
    key: IdempotencyKey,
    body: Body<AddThing>,
    store: Data<Store>,
) -> Result<Outcome<Thing>, Error> {
    let claim = key.required()?.claim(Some(caller.id), &body.bytes)?;
    let AddThing { name } = body.value;
    claim.once(store.db(), created, async |tx| store.add(tx, caller.id, name).await).await
}

fn created(added: &Thing) -> StoredResponse {
    StoredResponse::json(StatusCode::CREATED, &ThingView::from(added))
        .header((LOCATION, format!("/api/things/{}", added.id)))
        .header(etag(added.version))
}
