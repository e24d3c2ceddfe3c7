//! `/admin/sagas`: the checkouts that are not done, and what an admin can do about stuck ones.

use std::str::FromStr;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::json;
use shared::auth::Admin;
use shared::client::Context;
use shared::idempotency::{Answer, IdempotencyKey};
use shared::request::{Params, PathId};

use super::taking_on::{Asked, take_on};
use crate::checkout::{Event, Progress};
use crate::error::Error;
use crate::store::Store;
use crate::wire;

/// `running` or `stuck`.
struct State(Progress);

impl FromStr for State {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Progress::named(name).filter(|progress| *progress != Progress::Done).map(Self).ok_or(())
    }
}

pub(super) async fn list(_: Admin, params: Params, store: web::Data<Store>) -> Result<HttpResponse, Error> {
    let state = params.optional::<State>("state", "running or stuck")?;
    let sagas = store.sagas(state.map(|State(progress)| progress)).await?;
    let sagas: Vec<_> = sagas.into_iter().map(wire::SagaState::from).collect();
    Ok(HttpResponse::Ok().json(json!({ "sagas": sagas })))
}

/// Tries the step that is stuck again.
pub(super) async fn resume(
    Admin(caller): Admin,
    id: PathId,
    key: IdempotencyKey,
    context: Context,
    body: web::Bytes,
    store: web::Data<Store>,
) -> Result<Answer, Error> {
    take_on(&store, id, Event::Resume, StatusCode::OK, Asked { caller, key, context, body }).await
}

/// Undoes the order.
pub(super) async fn compensate(
    Admin(caller): Admin,
    id: PathId,
    key: IdempotencyKey,
    context: Context,
    body: web::Bytes,
    store: web::Data<Store>,
) -> Result<Answer, Error> {
    take_on(&store, id, Event::Compensate, StatusCode::OK, Asked { caller, key, context, body }).await
}
