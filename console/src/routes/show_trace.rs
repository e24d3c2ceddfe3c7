//! `GET /api/traces/{id}`: one trace, with its log records.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};

use super::answer;
use super::operator::Operator;
use crate::error::Error;
use crate::store::Store;
use crate::views::traces::trace;

#[utoipa::path(get, path = "/api/traces/{id}", tag = "traces", params(("id" = String, Path)),
    responses((status = 200), (status = 404, description = "`not_found`")))]
pub(crate) async fn show_trace(
    _: Operator,
    id: Path<String>,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let id = id.to_ascii_lowercase();
    let spans = store.trace(&id).await?;
    if spans.is_empty() {
        return Err(Error::NotFound);
    }
    let logs = store.logs_of(&id).await?;
    Ok(answer::json(trace(&spans, &logs)))
}
