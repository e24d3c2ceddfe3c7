//! `POST /api/services/{name}/replicas/{id}/{action}`: the gateway puts a replica into maintenance, or ends that.

use std::str::FromStr;

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::web::{Bytes, Data, Path};
use serde_json::{Value, json};
use shared::problem::{FieldError, Problem};

use super::answer;
use super::operator::Operator;
use crate::clients::admin::encoded;
use crate::clients::gateway::Gateway;
use crate::clients::overview::Overview;
use crate::error::Error;

enum Action {
    /// Maintenance for some time.
    Eject,
    /// Maintenance until the replica is restored.
    Drain,
    Restore,
}

impl FromStr for Action {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "eject" => Ok(Self::Eject),
            "drain" => Ok(Self::Drain),
            "restore" => Ok(Self::Restore),
            _ => Err(Error::NotFound),
        }
    }
}

#[utoipa::path(post, path = "/api/services/{name}/replicas/{id}/{action}", tag = "map",
    params(("name" = String, Path), ("id" = String, Path), ("action" = String, Path, description = "eject, drain or restore")),
    responses((status = 204), (status = 404, description = "`not_found`"), (status = 422, description = "`validation_failed`")))]
pub(crate) async fn change_replica(
    operator: Operator,
    path: Path<(String, String, String)>,
    body: Bytes,
    gateway: Data<Gateway>,
    overview: Data<Overview>,
) -> Result<HttpResponse, Error> {
    let (service, id, action) = path.into_inner();
    let path = format!("/registry/services/{}/instances/{}/maintenance", encoded(&service), encoded(&id));
    let (method, body) = match action.parse::<Action>()? {
        Action::Eject => (Method::PUT, Some(with_seconds(&body)?)),
        Action::Drain => (Method::PUT, Some(json!({}))),
        Action::Restore => (Method::DELETE, None),
    };
    let answer = gateway.change(method, &path, body, &operator.asker.token).await?;
    overview.look_again().await;
    Ok(answer::passed(&answer))
}

/// The body, in which the gateway finds for how long.
fn with_seconds(body: &[u8]) -> Result<Value, Problem> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match body.get("seconds") {
        Some(_) => Ok(body),
        None => Err(Problem::validation(vec![FieldError {
            field: "seconds".to_owned(),
            message: "is missing".to_owned(),
        }])),
    }
}
