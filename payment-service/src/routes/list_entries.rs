//! `GET /admin/payments/{id}/entries`

use actix_web::{HttpResponse, web};
use serde_json::json;
use shared::auth::Admin;
use shared::request::PathId;
use time::format_description::well_known::Rfc3339;

use crate::error::Error;
use crate::store::Store;

/// The ledger's entries of one payment, oldest first.
#[utoipa::path(get, path = "/admin/payments/{id}/entries")]
pub(crate) async fn list_entries(
    _: Admin,
    id: PathId,
    store: web::Data<Store>,
) -> Result<HttpResponse, Error> {
    let entries: Vec<_> = store
        .entries(id.0)
        .await?
        .iter()
        .map(|entry| {
            json!({
                "entry_id": format!("{}:{}", entry.cause, entry.account),
                "at": entry.at.format(&Rfc3339).unwrap_or_default(),
                "kind": entry.cause,
                "account": entry.account,
                "amount": entry.amount,
                "currency": entry.currency,
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({ "entries": entries })))
}
