//! `POST /api/orders`: places an order. The saga then takes the payment, through messages to payment-service.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::web::Data;
use async_trait::async_trait;
use shared::auth::Caller;
use shared::body::{Body, Fields, FromBody, Invalid};
use shared::client::Context;
use shared::db::Tx;
use shared::idempotency::{GroupCommit, IdempotencyKey, Operation, Plans, StoredResponse};
use shared::request::{PreferWait, etag};
use utoipa::ToSchema;
use uuid::Uuid;

use super::prefer_wait;
use crate::clients::users::Users;
use crate::domain::cart::MAX_LINES;
use crate::domain::{Cart, CartLine, Order, PaymentToken, Quantity};
use crate::error::Error;
use crate::store::{Cause, NewOrder, Store};
use crate::views::OrderView;

#[utoipa::path(post, path = "/api/orders", tag = "orders", security(("user" = [])),
    request_body(content = PlaceOrder),
    params(
        ("Idempotency-Key" = String, Header),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: answer when the payment has succeeded or failed, or after N seconds (at most 30)"),
    ),
    responses(
        (status = 201, body = OrderView),
        (status = 403, description = "`customer_inactive`"),
        (status = 409, description = "`out_of_stock`, naming the lines"),
        (status = 422, description = "`unknown_product`, `validation_failed`"),
        (status = 429, description = "`rate_limited`: too many orders of the customer await payment"),
        (status = 503, description = "user-service gives no usable answer about the customer"),
    ))]
pub(crate) async fn place_order(
    caller: Caller,
    key: IdempotencyKey,
    wait: PreferWait,
    context: Context,
    body: Body<PlaceOrder>,
    users: Data<Users>,
    orders: Data<GroupCommit<PlaceOrderOperation>>,
) -> Result<HttpResponse, Error> {
    let claim = key.required()?.claim(Some(caller.id), &body.bytes)?;
    let cause = Cause::request("placed", &context);
    // user-service is called before the transaction, because a transaction must not wait for another service. A repeated
    // request (same idempotency key) gets its stored response even if the call fails, for example because user-service is
    // down.
    let outcome = match users.must_be_active(caller.id, &context).await {
        Ok(()) => {
            orders.once(claim, PlaceOrderInput { customer_id: caller.id, body: body.value, cause }).await?
        }
        Err(error) => orders.replay_or(claim, error).await?,
    };
    Ok(prefer_wait::respond(&orders.operation().store, outcome, created_response, wait, &context).await)
}

/// Requests that arrive together are placed in one transaction.
pub(crate) struct PlaceOrderOperation {
    pub(crate) store: Store,
}

/// The request of a customer who is active.
pub(crate) struct PlaceOrderInput {
    customer_id: Uuid,
    body: PlaceOrder,
    cause: Cause,
}

#[async_trait(?Send)]
impl Operation for PlaceOrderOperation {
    type Request = PlaceOrderInput;
    type Plan = Order;
    type Error = Error;

    async fn plan(&self, tx: &mut Tx, inputs: &[&PlaceOrderInput]) -> Plans<Self> {
        let carts: Vec<_> = inputs.iter().map(|input| (input.customer_id, &input.body.cart)).collect();
        Ok(self.store.quote(tx, &carts).await?)
    }

    fn response(&self, order: &Order) -> StoredResponse {
        created_response(order)
    }

    async fn apply(&self, tx: &mut Tx, orders: &[(&PlaceOrderInput, &Order)]) -> Result<(), Error> {
        let orders = orders.iter().map(|(PlaceOrderInput { body, cause, .. }, order)| NewOrder {
            order,
            token: &body.payment_token,
            cause,
        });
        self.store.place(tx, orders.collect()).await
    }
}

fn created_response(order: &Order) -> StoredResponse {
    StoredResponse::json(StatusCode::CREATED, &OrderView::from(order))
        .header((LOCATION, format!("/api/orders/{}", order.id)))
        .header(etag(order.version()))
}

#[derive(Debug, ToSchema)]
pub(crate) struct PlaceOrder {
    #[schema(value_type = Vec<PlaceOrderLine>, min_items = 1, max_items = 50)]
    #[schema(rename = "lines")]
    cart: Cart,
    /// The token that stands for the card at the card network.
    #[schema(value_type = String, example = "tok_visa", pattern = "^tok_[a-z_]{1,60}$")]
    payment_token: PaymentToken,
}

#[derive(Debug, Clone, Copy, ToSchema)]
pub(crate) struct PlaceOrderLine {
    product_id: Uuid,
    #[schema(value_type = i64, minimum = 1, maximum = 1000)]
    quantity: Quantity,
}

impl FromBody for PlaceOrder {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        let lines = fields.list::<PlaceOrderLine>("lines", 1..=MAX_LINES);
        let payment_token = fields.required("payment_token");
        let line = |PlaceOrderLine { product_id, quantity }| CartLine { product_id, quantity };
        match Cart::new(lines?.into_iter().map(line).collect()) {
            Ok(cart) => Ok(Self { cart, payment_token: payment_token? }),
            Err(duplicate) => {
                let path = format!("lines[{}].product_id", duplicate.index);
                fields.reject(&path, "is on another line already: order it once, with a higher quantity")
            }
        }
    }
}

shared::from_body! { PlaceOrderLine { required: product_id, quantity; } }
