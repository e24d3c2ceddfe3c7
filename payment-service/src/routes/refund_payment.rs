//! `POST /api/payments/{id}/refunds`

use actix_web::http::StatusCode;
use actix_web::web;
use serde::Deserialize;
use serde_json::json;
use shared::audit;
use shared::auth::Admin;
use shared::body::{Body, Fields, FromBody, Invalid};
use shared::client::Context;
use shared::db::Tx;
use shared::idempotency::{IdempotencyKey, Outcome, StoredResponse};
use shared::request::PathId;
use utoipa::ToSchema;

use crate::domain::{Currency, Money, Refund};
use crate::error::Error;
use crate::store::Store;
use crate::views::{MoneyView, RefundView};

/// The amount to refund, and the reason.
#[derive(Debug, ToSchema)]
pub(crate) struct RefundRequest {
    /// The amount; all that is left if absent.
    #[schema(value_type = Option<MoneyView>)]
    pub amount: Option<Money>,
    /// Why, in 1 to 500 characters.
    #[schema(value_type = String, min_length = 1, max_length = 500)]
    pub reason: Reason,
}

/// 1 to 500 characters.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Reason(String);

/// Gives back some of a captured payment, or all that is left. The order stays as it is.
///
/// # Errors
/// 409 if there is not so much to give back.
#[utoipa::path(
    post, path = "/api/payments/{id}/refunds", tag = "payments", operation_id = "refund_payment",
    security(("user" = [])),
    params(("id" = uuid::Uuid, Path), ("Idempotency-Key" = String, Header, description = "Required")),
    request_body = RefundRequest,
    responses(
        (status = 201, description = "The refund, on its way", body = RefundView),
        (status = 403, description = "`forbidden`: only admins refund; `recent_login_required`"),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`not_refundable`, `exceeds_captured`"),
    )
)]
pub(crate) async fn refund_payment(
    Admin(admin): Admin,
    id: PathId,
    key: IdempotencyKey,
    body: Body<RefundRequest>,
    context: Context,
    store: web::Data<Store>,
) -> Result<Outcome<Refund>, Error> {
    admin.require_recent_login()?;
    let claim = key.required()?.claim(Some(admin.id), &body.bytes)?;
    let RefundRequest { amount, reason } = body.value;
    let created = |refund: &Refund| StoredResponse::json(StatusCode::CREATED, &RefundView::from(refund));
    let trace = context.traceparent();
    let refund = async |tx: &mut Tx| {
        let refund = store.refund(tx, id.0, amount, &reason.0, trace.as_deref()).await?;
        let details = json!({ "refund_id": refund.id, "amount": refund.amount.amount() });
        audit::record(tx, &admin, &context, "payment.refund", id.0, details).await?;
        Ok::<_, Error>(refund)
    };
    claim.once(store.db(), created, refund).await
}

impl FromBody for RefundRequest {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        let amount = fields.optional_object::<Amount>("amount");
        let reason = fields.required("reason");
        Ok(Self { amount: amount?.map(|Amount(money)| money), reason: reason? })
    }
}

/// An amount above zero.
struct Amount(Money);

impl FromBody for Amount {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        let (amount, currency) = (fields.required::<i64>("amount"), fields.required::<Currency>("currency"));
        let amount = match amount {
            Ok(amount) if amount < 1 => fields.reject("amount", "must be at least 1"),
            amount => amount,
        };
        Money::new(amount?, currency?).map(Self).map_err(|_| Invalid)
    }
}

impl TryFrom<String> for Reason {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let text = text.trim();
        match text.chars().count() {
            1..=500 if !text.chars().any(char::is_control) => Ok(Self(text.to_owned())),
            _ => Err("must have 1 to 500 characters, none of them a control character"),
        }
    }
}
