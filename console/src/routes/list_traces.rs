//! `GET /api/traces`: the traces that a search finds, newest first.

use std::time::Instant;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::json;
use shared::request::Params;

use super::answer;
use super::operator::Operator;
use crate::domain::TraceSearch;
use crate::error::Error;
use crate::store::Store;
use crate::views::traces::summary;

#[utoipa::path(get, path = "/api/traces", tag = "traces",
    params(("q" = Option<String>, Query), ("limit" = Option<u8>, Query), ("before" = Option<String>, Query)),
    responses((status = 200), (status = 400, description = "`invalid_parameter`")))]
pub(crate) async fn list_traces(
    _: Operator,
    params: Params,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let began = Instant::now();
    let text: Option<String> = params.optional("q", "a search")?;
    let search = TraceSearch::parse(&text.unwrap_or_default())?;
    let before = params.optional::<i64>("before", "the next of a list")?;
    let found = store.traces(&search, before, limit(&params)?).await?;
    Ok(answer::json(json!({
        "traces": found.items.iter().map(summary).collect::<Vec<_>>(),
        "next": found.next.map(|next| next.to_string()),
        "took_ms": began.elapsed().as_secs_f64() * 1000.0,
    })))
}

/// 1 to 500; 50 if absent.
pub(super) fn limit(params: &Params) -> Result<i64, Error> {
    Ok(params.optional::<i64>("limit", "a number")?.unwrap_or(50).clamp(1, 500))
}
