//! What cancel, ship, deliver, resume and compensate have in common: a person moves an order on.

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use shared::auth::Caller;
use shared::client::Context;
use shared::idempotency::{Answer, IdempotencyKey, Outcome};
use shared::request::{PathId, etag};

use crate::checkout::Trigger;
use crate::domain::Order;
use crate::error::Error;
use crate::store::{Cause, Store};
use crate::views::OrderView;

/// A request about the order in the path, by a [`Caller`] or an [`Admin`](shared::auth::Admin).
pub(crate) struct OrderCommand<Who> {
    pub(super) by: Who,
    pub(super) id: PathId,
    key: IdempotencyKey,
    context: Context,
    body: web::Bytes,
}

impl<Who: AsRef<Caller>> OrderCommand<Who> {
    /// Applies `trigger` to the order, once per key.
    pub(super) async fn apply(
        self,
        store: &Store,
        trigger: Trigger,
        status: StatusCode,
    ) -> Result<Outcome<Order>, Error> {
        let claim = self.key.claim(Some(self.by.as_ref().id), &self.body)?;
        let cause = Cause::request(trigger.as_str(), &self.context);
        let answer =
            |order: &Order| Answer::json(status, &OrderView::from(order)).header(etag(order.version()));
        let advance = async |tx: &mut _| store.advance(tx, self.id.0, &trigger, &cause).await;
        claim.once(store.db(), answer, advance).await
    }
}

impl<Who> FromRequest for OrderCommand<Who>
where
    Who: FromRequest + 'static,
    Who::Error: 'static,
    Who::Future: 'static,
{
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let parts = <(Who, PathId, IdempotencyKey, Context, web::Bytes)>::from_request(request, payload);
        async move {
            let (by, id, key, context, body) = parts.await?;
            Ok(Self { by, id, key, context, body })
        }
        .boxed_local()
    }
}
