//! `GET /admin/ledger`

use actix_web::{HttpResponse, web};
use serde_json::json;
use shared::auth::Admin;

use crate::error::Error;
use crate::store::Store;

/// What is in every account. `sum` is 0, or money was made or lost.
///
/// # Errors
/// When the database fails.
pub async fn ledger(_: Admin, store: web::Data<Store>) -> Result<HttpResponse, Error> {
    let ledger = store.ledger().await?;
    let accounts: Vec<_> = ledger
        .balances
        .iter()
        .map(|total| json!({ "name": total.account, "currency": total.currency, "balance": total.balance }))
        .collect();
    let answer = json!({ "accounts": accounts, "entries": ledger.entries, "sum": ledger.sum() });
    Ok(HttpResponse::Ok().json(answer))
}
