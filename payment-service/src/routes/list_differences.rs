//! `GET /admin/differences`

use actix_web::{HttpResponse, web};
use serde_json::json;
use shared::auth::Admin;
use shared::request::Params;

use crate::error::Error;
use crate::store::Store;
use crate::views::DifferenceView;

/// Newest; `open` counts the others too.
const MOST: i64 = 1000;

/// Where the card network contradicts our books.
#[utoipa::path(get, path = "/admin/differences")]
pub(crate) async fn list_differences(
    _: Admin,
    params: Params,
    store: web::Data<Store>,
) -> Result<HttpResponse, Error> {
    let state = params.optional::<DifferenceState>("state", "open or resolved")?;
    let is_open = state != Some(DifferenceState::Resolved);
    let found = store.differences(is_open, MOST).await?;
    let differences: Vec<_> = found.iter().map(DifferenceView::from).collect();
    let open = store.count_open_differences().await?;
    Ok(HttpResponse::Ok().json(json!({ "open": open, "differences": differences })))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DifferenceState {
    Open,
    Resolved,
}

impl std::str::FromStr for DifferenceState {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "open" => Ok(Self::Open),
            "resolved" => Ok(Self::Resolved),
            _ => Err(()),
        }
    }
}
