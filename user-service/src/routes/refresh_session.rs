//! `POST /api/sessions/refresh`: new tokens for a refresh token, which is then spent.

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Data;
use shared::auth::MaybeCaller;
use shared::body::Body;
use utoipa::ToSchema;

use crate::error::Error;
use crate::store::{Refreshed, Store};
use crate::tokens::{Issuer, RefreshToken};
use crate::views::TokensView;

/// The token that continues a session.
#[derive(ToSchema)]
#[schema(as = Refresh)]
pub(crate) struct RefreshSession {
    /// The newest refresh token.
    refresh_token: String,
}

shared::from_body! { RefreshSession { required: refresh_token; } }

/// Gives new tokens for a refresh token, which is then spent.
#[utoipa::path(post, path = "/api/sessions/refresh", tag = "sessions", request_body = RefreshSession,
    responses((status = 200, body = TokensView), (status = 401, description = "`token_reused`, `invalid_token`")))]
pub(crate) async fn refresh_session(
    _: MaybeCaller,
    body: Body<RefreshSession>,
    store: Data<Store>,
    issuer: Data<Issuer>,
) -> Result<HttpResponse, Error> {
    let token = RefreshToken::from(body.value.refresh_token);
    let refreshed = store.db().transaction(async |tx| store.refresh(tx, &token).await);
    let Refreshed::Renewed { session, user, next } = refreshed.await? else { return Err(Error::TokenReused) };
    let tokens = issuer.issue(&user, session, next)?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(TokensView::from(tokens)))
}
