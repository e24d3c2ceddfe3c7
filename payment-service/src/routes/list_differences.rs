//! `GET /admin/differences`

use actix_web::{HttpResponse, web};
use serde_json::json;
use shared::auth::Admin;
use shared::request::Params;

use crate::domain::AmountKind;
use crate::error::Error;
use crate::store::{Position, Store};
use crate::views::DifferenceView;

/// Items per page, unless `limit` says fewer.
const PAGE: usize = 1000;

/// A page of the differences between the card network and our books; `open` counts those of all pages.
#[utoipa::path(get, path = "/admin/differences")]
pub(crate) async fn list_differences(
    _: Admin,
    params: Params,
    store: web::Data<Store>,
) -> Result<HttpResponse, Error> {
    let state = params.optional::<DifferenceState>("state", "open or resolved")?;
    let is_open = state != Some(DifferenceState::Resolved);
    let after = params.optional::<Cursor>("cursor", "a next_cursor of this list")?;
    let after = after.map(|Cursor(position)| position);
    let limit = params.optional::<usize>("limit", "a number")?.unwrap_or(PAGE).clamp(1, PAGE);
    let mut found = store.differences(is_open, after.as_ref(), limit as i64 + 1).await?;
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let last = found.last().filter(|_| !is_last);
    let next_cursor = last.map(|last| format!("{}:{}", last.difference.figure.as_str(), last.key));
    let differences: Vec<_> = found.iter().map(DifferenceView::from).collect();
    let open = store.count_open_differences().await?;
    let body = json!({ "open": open, "differences": differences, "next_cursor": next_cursor });
    Ok(HttpResponse::Ok().json(body))
}

/// `FIGURE:KEY` of the last item of the previous page.
struct Cursor(Position);

impl std::str::FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (figure, key) = text.split_once(':').ok_or(())?;
        let figure = AmountKind::named(figure).ok_or(())?;
        Ok(Self(Position { key: key.to_owned(), figure }))
    }
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
