//! What cancel, ship, deliver, resume and compensate have in common: a person takes an order on.

use actix_web::http::StatusCode;
use actix_web::web;
use shared::auth::Caller;
use shared::client::Context;
use shared::idempotency::{Answer, IdempotencyKey};
use shared::request::{PathId, etag};

use crate::checkout::Event;
use crate::domain::Order;
use crate::error::Error;
use crate::store::{Cause, Store};
use crate::wire;

/// Who asks, and how.
pub(super) struct Asked {
    pub(super) caller: Caller,
    pub(super) key: IdempotencyKey,
    pub(super) context: Context,
    pub(super) body: web::Bytes,
}

/// Takes the order on by `event`, once per key, and answers with it.
pub(super) async fn take_on(
    store: &Store,
    id: PathId,
    event: Event,
    status: StatusCode,
    asked: Asked,
) -> Result<Answer, Error> {
    let claim = asked.key.claim(Some(asked.caller.id), &asked.body)?;
    let cause = Cause::request(event.as_str(), &asked.context);
    let moved = claim.once(
        store.db(),
        |order| answer(status, order),
        async |tx| store.advance(tx, id.0, &event, &cause).await,
    );
    Ok(moved.await?.into_answer())
}

fn answer(status: StatusCode, order: &Order) -> Answer {
    Answer::json(status, &wire::Order::from(order)).header(etag(order.version()))
}
