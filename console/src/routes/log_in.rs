//! `POST /api/session`: an admin logs in.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use shared::body::Body;
use shared::client::Context;
use utoipa::ToSchema;

use super::operator::SameOrigin;
use super::show_session::described;
use super::{answer, cookies};
use crate::clients::sessions::{Refusal, Sessions};
use crate::error::Error;

#[derive(ToSchema)]
pub(crate) struct LogIn {
    email: String,
    password: String,
}

shared::from_body! { LogIn { required: email, password; } }

#[utoipa::path(post, path = "/api/session", tag = "session", request_body = LogIn,
    responses((status = 200), (status = 401, description = "`invalid_credentials`"),
        (status = 403, description = "`forbidden`: the person is not an admin")))]
pub(crate) async fn log_in(
    _: SameOrigin,
    request: HttpRequest,
    context: Context,
    body: Body<LogIn>,
    sessions: Data<Sessions>,
) -> Result<HttpResponse, Error> {
    let address = request.peer_addr().map(|address| address.ip().to_string());
    let LogIn { email, password } = body.value;
    match sessions.log_in(&email, &password, address, &context).await {
        Ok((key, person)) => {
            // An admin who confirms the password has one already.
            if let Some(old) = cookies::session_key(&request) {
                sessions.log_out(&old, &context).await;
            }
            let mut response = answer::json(described(&person));
            let (name, value) = cookies::keep(&key);
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
            Ok(response)
        }
        Err(Refusal::Answered(refusal)) => Ok(answer::passed(&refusal)),
        Err(Refusal::Failed(error)) => Err(error),
    }
}
