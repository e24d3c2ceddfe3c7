//! `GET /admin/ledger`

use actix_web::{HttpResponse, web};
use serde_json::json;
use shared::auth::Admin;

use crate::error::Error;
use crate::store::Store;

/// The balance of every account. A `sum` other than 0 is a bookkeeping error.
#[utoipa::path(get, path = "/admin/ledger")]
pub(crate) async fn show_ledger(_: Admin, store: web::Data<Store>) -> Result<HttpResponse, Error> {
    let ledger = store.ledger().await?;
    let accounts: Vec<_> = ledger
        .balances
        .iter()
        .map(|total| json!({ "name": total.account, "currency": total.currency, "balance": total.balance }))
        .collect();
    let answer = json!({ "accounts": accounts, "entries": ledger.entries, "sum": ledger.sum() });
    Ok(HttpResponse::Ok().json(answer))
}
