//! The code that cancel, ship, deliver, resume and compensate share.

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data};
use actix_web::{FromRequest, HttpRequest};
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde_json::json;
use shared::audit;
use shared::auth::Caller;
use shared::client::Context;
use shared::db::Tx;
use shared::idempotency::{IdempotencyKey, Outcome, StoredResponse};
use shared::request::{PathId, etag};

use crate::checkout::Trigger;
use crate::domain::Order;
use crate::error::Error;
use crate::store::{Cause, Store};
use crate::views::OrderView;

/// A person's request to change the order in the path. `By` is [`Caller`] or [`Admin`](shared::auth::Admin).
pub(crate) struct OrderCommand<By> {
    pub(super) by: By,
    pub(super) id: PathId,
    pub(super) store: Data<Store>,
    key: IdempotencyKey,
    context: Context,
    body: Bytes,
}

impl<By: AsRef<Caller>> OrderCommand<By> {
    /// Applies `trigger` once per idempotency key. `status` is the status code of the answer.
    pub(super) async fn apply(self, trigger: Trigger, status: StatusCode) -> Result<Outcome<Order>, Error> {
        let claim = self.key.clone().claim(Some(self.by.as_ref().id), &self.body)?;
        let cause = Cause::request(trigger.as_str(), &self.context);
        let answer = |order: &Order| {
            StoredResponse::json(status, &OrderView::from(order)).header(etag(order.version()))
        };
        let advance = async |tx: &mut Tx| {
            let locked = self.store.lock(tx, self.id.0).await?;
            let (before, now) = (locked.order.version(), tx.now());
            let order = self.store.apply_trigger(tx, locked, &trigger, &cause, now).await?;
            if order.version() != before {
                self.audit(tx, &trigger, &order).await?;
            }
            Ok::<_, Error>(order)
        };
        claim.once(self.store.db(), answer, advance).await
    }

    /// Writes an audit row, unless a customer cancels their own order.
    async fn audit(&self, tx: &mut Tx, trigger: &Trigger, order: &Order) -> Result<(), Error> {
        let by = self.by.as_ref();
        if matches!(trigger, Trigger::Cancel) && by.id == order.customer_id {
            return Ok(());
        }
        let details = json!({ "version": order.version(), "status": order.status().as_str() });
        Ok(audit::record(tx, by, &self.context, trigger.as_str(), order.id, details).await?)
    }
}

impl<By> FromRequest for OrderCommand<By>
where
    By: FromRequest + 'static,
    By::Error: 'static,
    By::Future: 'static,
{
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let parts =
            <(By, PathId, Data<Store>, IdempotencyKey, Context, Bytes)>::from_request(request, payload);
        async move {
            let (by, id, store, key, context, body) = parts.await?;
            Ok(Self { by, id, store, key, context, body })
        }
        .boxed_local()
    }
}
