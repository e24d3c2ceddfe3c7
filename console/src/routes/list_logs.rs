//! `GET /api/logs`: the log records that a search finds, newest first.

use std::time::Instant;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::json;
use shared::request::Params;

use super::answer;
use super::list_traces::limit;
use super::operator::Operator;
use crate::domain::LogSearch;
use crate::error::Error;
use crate::store::Store;
use crate::views::traces::log;

#[utoipa::path(get, path = "/api/logs", tag = "traces",
    params(("q" = Option<String>, Query), ("limit" = Option<u8>, Query), ("before" = Option<String>, Query)),
    responses((status = 200), (status = 400, description = "`invalid_parameter`")))]
pub(crate) async fn list_logs(
    _: Operator,
    params: Params,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let began = Instant::now();
    let text: Option<String> = params.optional("q", "a search")?;
    let search = LogSearch::parse(&text.unwrap_or_default())?;
    let before = params.optional::<i64>("before", "the next of a list")?;
    let found = store.logs(&search, before, limit(&params)?).await?;
    Ok(answer::json(json!({
        "logs": found.items.iter().map(|(id, record)| log(*id, record, None)).collect::<Vec<_>>(),
        "next": found.next.map(|next| next.to_string()),
        "took_ms": began.elapsed().as_secs_f64() * 1000.0,
    })))
}
