//! `PUT /api/routes/{id}/strategy`: another load-balancing strategy for a route of the gateway.

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::web::{Data, Path};
use serde_json::json;
use shared::body::Body;

use super::answer;
use super::operator::Operator;
use crate::clients::admin::encoded;
use crate::clients::gateway::Gateway;
use crate::clients::overview::Overview;
use crate::error::Error;

pub(crate) struct Switch {
    strategy: String,
}

shared::from_body! { Switch { required: strategy; } }

#[utoipa::path(put, path = "/api/routes/{id}/strategy", tag = "map", params(("id" = String, Path)),
    responses((status = 200), (status = 404, description = "`not_found`"), (status = 422, description = "`validation_failed`")))]
pub(crate) async fn switch_strategy(
    operator: Operator,
    id: Path<String>,
    body: Body<Switch>,
    gateway: Data<Gateway>,
    overview: Data<Overview>,
) -> Result<HttpResponse, Error> {
    let path = format!("/routes/{}/strategy", encoded(&id));
    let body = json!({ "strategy": body.value.strategy });
    let answer = gateway.change(Method::PUT, &path, Some(body), &operator.asker.token).await?;
    overview.look_again().await;
    Ok(answer::passed(&answer))
}
