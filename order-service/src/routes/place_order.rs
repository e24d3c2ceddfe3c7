//! `POST /api/orders`: a customer buys something.

use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, web};
use shared::auth::Caller;
use shared::body::{Body, Fields, FromBody};
use shared::client::Context;
use shared::idempotency::{Answer, IdempotencyKey, Outcome};
use shared::request::{PreferWait, etag};
use utoipa::ToSchema;
use uuid::Uuid;

use super::waiting::waited;
use crate::clients::customers::Customers;
use crate::domain::cart::MOST_LINES;
use crate::domain::{Cart, CartLine, Order, PaymentToken, Quantity};
use crate::error::Error;
use crate::store::{Cause, Store};
use crate::wire;

#[utoipa::path(post, path = "/api/orders", tag = "orders", security(("user" = [])),
    request_body(content = PlaceOrder),
    params(
        ("Idempotency-Key" = String, Header),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: answer when it rests, or after N seconds"),
    ),
    responses(
        (status = 201, body = wire::Order),
        (status = 403, description = "`customer_inactive`"),
        (status = 409, description = "`out_of_stock`, naming the lines"),
        (status = 422, description = "`unknown_product`, `validation_failed`"),
        (status = 503, description = "the customer cannot be checked"),
    ))]
pub(crate) async fn place_order(
    caller: Caller,
    key: IdempotencyKey,
    wait: PreferWait,
    context: Context,
    body: Body<PlaceOrder>,
    customers: web::Data<Customers>,
    store: web::Data<Store>,
) -> Result<HttpResponse, Error> {
    let claim = key.required()?.claim(Some(caller.id), &body.bytes)?;
    // Asked before the transaction, which must not wait for another service; judged within it, because
    // an order that was placed is answered again, whatever became of its customer.
    let active = customers.must_be_active(caller.id, &context).await;
    let PlaceOrder { cart, payment_token } = body.value;
    let cause = Cause::request("placed", &context);
    let placed = claim.once(store.db(), created, async |tx| {
        active?;
        store.place(tx, caller.id, &cart, payment_token, &cause).await
    });
    match (placed.await?, wait) {
        (Outcome::Done { value: order, .. }, PreferWait(Some(time))) => {
            Ok(waited(&store, order, time, &context).await)
        }
        (outcome, _) => Ok(outcome.into_answer().response()),
    }
}

/// The answer to whoever placed the order.
pub(super) fn created(order: &Order) -> Answer {
    Answer::json(StatusCode::CREATED, &wire::Order::from(order))
        .header((LOCATION, format!("/api/orders/{}", order.id)))
        .header(etag(order.version()))
}

/// What somebody wants to buy.
#[derive(Debug, ToSchema)]
pub(crate) struct PlaceOrder {
    #[schema(value_type = Vec<PlaceOrderLine>, min_items = 1, max_items = 50)]
    #[schema(rename = "lines")]
    cart: Cart,
    /// What the card network knows the card by.
    #[schema(value_type = String, example = "tok_visa", pattern = "^tok_[a-z_]{1,60}$")]
    payment_token: PaymentToken,
}

/// So many of a product.
#[derive(Debug, Clone, Copy, ToSchema)]
pub(crate) struct PlaceOrderLine {
    product_id: Uuid,
    #[schema(value_type = i64, minimum = 1, maximum = 1000)]
    quantity: Quantity,
}

impl FromBody for PlaceOrder {
    fn from_body(fields: &mut Fields<'_>) -> Option<Self> {
        let lines = fields.list::<PlaceOrderLine>("lines", 1..=MOST_LINES);
        let payment_token = fields.required("payment_token");
        let lines = lines?
            .into_iter()
            .map(|PlaceOrderLine { product_id, quantity }| CartLine { product_id, quantity });
        match Cart::of(lines.collect()) {
            Ok(cart) => Some(Self { cart, payment_token: payment_token? }),
            Err(repeated) => {
                let path = format!("lines[{}].product_id", repeated.0);
                fields.reject(&path, "is on another line already: order it once, with a higher quantity")
            }
        }
    }
}

impl FromBody for PlaceOrderLine {
    fn from_body(fields: &mut Fields<'_>) -> Option<Self> {
        let (product_id, quantity) = (fields.required("product_id"), fields.required("quantity"));
        Some(Self { product_id: product_id?, quantity: quantity? })
    }
}
