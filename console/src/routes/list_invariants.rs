//! `GET /api/lab/invariants`: what must hold in the whole stack, each with how many were looked at.

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::{Value, json};

use super::answer;
use super::operator::Operator;
use super::show_lab::on;
use crate::clients::inspection::Inspection;
use crate::domain::standing::{Judged, State};
use crate::error::Error;

#[utoipa::path(get, path = "/api/lab/invariants", tag = "lab",
    responses((status = 200), (status = 404, description = "`not_found`: without LAB=on")))]
pub(crate) async fn list_invariants(
    operator: Operator,
    inspection: Data<Option<Inspection>>,
) -> Result<HttpResponse, Error> {
    let judged = on(&inspection)?.look(&operator.asker).await;
    let invariants = judged.map(|all| all.iter().map(described).collect::<Vec<_>>());
    Ok(answer::json(json!({ "invariants": invariants })))
}

fn described(judged: &Judged) -> Value {
    let state = match judged.state {
        State::Holds => "holds",
        State::Settling => "settling",
        State::Broken => "broken",
    };
    json!({
        "name": judged.name, "promise": judged.promise, "checked": judged.checked, "state": state,
        "found": judged.found,
        "violations": judged.violations,
    })
}
