//! `POST /api/products/{id}/stock-adjustments`: corrects the stock after a count or a delivery.

use actix_web::http::StatusCode;
use actix_web::web::Data;
use serde::Serialize;
use shared::auth::Admin;
use shared::body::Body;
use shared::idempotency::{IdempotencyKey, Outcome, StoredResponse};
use shared::request::PathId;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::{Delta, Name};
use crate::error::Error;
use crate::store::{Adjustment, Store};

#[derive(Debug, ToSchema)]
pub(crate) struct AdjustStock {
    /// Added to what is on hand; not 0.
    #[schema(value_type = i64, minimum = -1_000_000, maximum = 1_000_000)]
    delta: Delta,
    #[schema(value_type = String, min_length = 1, max_length = 200)]
    reason: Name,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StockAdjustment {
    product_id: Uuid,
    delta: i64,
    available: i64,
}

shared::from_body! { AdjustStock { required: delta, reason; } }

#[utoipa::path(post, path = "/api/products/{id}/stock-adjustments", tag = "products", security(("user" = [])),
    request_body(content = AdjustStock),
    params(("id" = uuid::Uuid, Path), ("Idempotency-Key" = String, Header)),
    responses(
        (status = 201, body = StockAdjustment),
        (status = 403, description = "not an admin"),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`out_of_stock`: there is not that much on hand"),
        (status = 422, description = "`validation_failed`, also if more than a million would be on hand"),
    ))]
pub(crate) async fn adjust_stock(
    admin: Admin,
    id: PathId,
    key: IdempotencyKey,
    body: Body<AdjustStock>,
    store: Data<Store>,
) -> Result<Outcome<StockAdjustment>, Error> {
    let claim = key.required()?.claim(Some(admin.0.id), &body.bytes)?;
    let AdjustStock { delta, reason } = body.value;
    let adjustment = Adjustment { product_id: id.0, delta, reason: reason.into(), admin_id: admin.0.id };
    let adjusted = claim.once(store.db(), created, async |tx| {
        let available = store.adjust_stock(tx, &adjustment).await?;
        Ok(StockAdjustment { product_id: id.0, delta: delta.get(), available })
    });
    adjusted.await
}

fn created(adjustment: &StockAdjustment) -> StoredResponse {
    StoredResponse::json(StatusCode::CREATED, adjustment)
}
