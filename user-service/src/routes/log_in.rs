//! `POST /api/sessions`: begins a session.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use shared::auth::MaybeCaller;
use shared::body::Body;
use utoipa::ToSchema;

use super::client_address::client_address;
use crate::error::Error;
use crate::passwords::Passwords;
use crate::store::{LoginAttempt, Store};
use crate::tokens::{Issuer, RefreshToken};
use crate::views::TokensView;

/// An email address and its password.
#[derive(ToSchema)]
pub(crate) struct LogIn {
    email: String,
    password: String,
}

shared::from_body! { LogIn { required: email, password; } }

/// Logs in. Neither the answer nor its time shows whether the address exists.
#[utoipa::path(post, path = "/api/sessions", tag = "sessions", request_body = LogIn,
    responses((status = 201, body = TokensView), (status = 401, description = "`invalid_credentials`"), (status = 429, description = "`rate_limited`")))]
pub(crate) async fn log_in(
    _: MaybeCaller,
    request: HttpRequest,
    body: Body<LogIn>,
    store: Data<Store>,
    passwords: Data<Passwords>,
    issuer: Data<Issuer>,
) -> Result<HttpResponse, Error> {
    let LogIn { email, password } = body.value;
    let client = client_address(&request);
    let attempt = LoginAttempt::new(&email, client.clone());
    let login = store.login(&attempt).await?;
    let hash = login.as_ref().map(|login| login.password_hash.clone());
    let lane = store.lane(&client).await?;
    let (true, Some(login)) = (passwords.verify(password, hash, lane).await?, login) else {
        store.db().transaction(async |tx| store.count_failure(tx, &attempt).await).await?;
        return Err(Error::InvalidCredentials);
    };
    let token = RefreshToken::random();
    let session = store.db().transaction(async |tx| store.begin_session(tx, &attempt, &login, &token).await);
    let tokens = issuer.issue(&login.user, session.await?, token)?;
    Ok(HttpResponse::Created().insert_header((CACHE_CONTROL, "no-store")).json(TokensView::from(tokens)))
}
