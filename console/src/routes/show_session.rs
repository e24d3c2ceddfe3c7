//! `GET /api/session`: who is logged in.

use actix_web::HttpResponse;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::answer;
use super::operator::Operator;
use crate::clients::sessions::Person;

#[utoipa::path(get, path = "/api/session", tag = "session",
    responses((status = 200), (status = 401, description = "`missing_token`, `invalid_token`")))]
pub(crate) async fn show_session(operator: Operator) -> HttpResponse {
    answer::json(described(&operator.person))
}

pub(super) fn described(person: &Person) -> Value {
    let logged_in_at = person.logged_in_at.format(&Rfc3339).unwrap_or_default();
    json!({ "id": person.id, "email": person.email, "logged_in_at": logged_in_at })
}
