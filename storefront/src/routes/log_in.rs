//! `POST /shop/session`: logs in, and keeps the session in a cookie.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use shared::body::Body;
use shared::client::Context;
use utoipa::ToSchema;

use super::same_origin::SameOrigin;
use super::tokens::{self, AccessToken};
use crate::clients::sessions::{CLIENT_ADDRESS, Client, Sessions};
use crate::error::Error;

#[derive(ToSchema)]
pub(crate) struct LogIn {
    email: String,
    password: String,
}

shared::from_body! { LogIn { required: email, password; } }

#[utoipa::path(post, path = "/shop/session", tag = "session", request_body = LogIn,
    responses((status = 201, body = AccessToken), (status = 401, description = "`invalid_credentials`"),
        (status = 403, description = "`forbidden`")))]
pub(crate) async fn log_in(
    _: SameOrigin,
    request: HttpRequest,
    context: Context,
    body: Body<LogIn>,
    sessions: Data<Sessions>,
) -> Result<HttpResponse, Error> {
    let address = request.headers().get(CLIENT_ADDRESS).and_then(|value| value.to_str().ok());
    let client = Client { address: address.map(str::to_owned), context };
    let answer = sessions.log_in(&body.value.email, &body.value.password, &client).await?;
    tokens::respond(&request, &answer)
}
