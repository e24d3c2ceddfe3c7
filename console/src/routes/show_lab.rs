//! `GET /api/lab`: every replica with the faults that it can have, and those that it has now.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::json;

use super::answer;
use super::operator::Operator;
use crate::clients::lab::Lab;
use crate::error::Error;

#[utoipa::path(get, path = "/api/lab", tag = "lab",
    responses((status = 200), (status = 404, description = "`not_found`: without LAB=on")))]
pub(crate) async fn show_lab(operator: Operator, lab: Data<Option<Lab>>) -> Result<HttpResponse, Error> {
    let replicas = on(&lab)?.replicas(&operator.asker).await;
    Ok(answer::json(json!({ "replicas": replicas })))
}

/// 404 without `LAB=on`.
pub(super) fn on<T>(part: &Option<T>) -> Result<&T, Error> {
    part.as_ref().ok_or(Error::NotFound)
}
