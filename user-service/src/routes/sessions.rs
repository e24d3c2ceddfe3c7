//! `/api/sessions`: logging in, staying logged in, logging out.

use std::time::Duration;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use shared::auth::{Caller, MaybeCaller, SigningKeys, USER_TOKEN_AUDIENCE, UserClaims};
use shared::body::{Body, Fields, FromBody};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::User;
use crate::error::UserError;
use crate::passwords::Passwords;
use crate::store::{LoginTry, Store};

/// Signs access tokens.
pub struct Issuer {
    keys: SigningKeys,
    ttl: Duration,
}

/// What somebody shows to log in.
#[derive(ToSchema)]
pub struct LogIn {
    /// The address.
    email: String,
    /// The password.
    password: String,
}

/// What keeps somebody logged in.
#[derive(ToSchema)]
pub struct Refresh {
    /// The newest refresh token.
    refresh_token: String,
}

/// The tokens of a session.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    access_token: String,
    token_type: &'static str,
    /// Seconds that the access token is good.
    expires_in: u64,
    refresh_token: String,
}

impl FromBody for LogIn {
    fn from_body(fields: &mut Fields<'_>) -> Option<Self> {
        let (email, password) = (fields.required("email"), fields.required("password"));
        Some(Self { email: email?, password: password? })
    }
}

impl FromBody for Refresh {
    fn from_body(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { refresh_token: fields.required("refresh_token")? })
    }
}

impl Issuer {
    /// An issuer whose tokens live for `ttl`.
    pub fn new(keys: SigningKeys, ttl: Duration) -> Self {
        Self { keys, ttl }
    }

    fn tokens(&self, user: &User, session: Uuid, refresh: RefreshToken) -> Result<Tokens, UserError> {
        let now = OffsetDateTime::now_utc().unix_timestamp().unsigned_abs();
        let claims = UserClaims {
            iss: crate::app::SERVICE.to_owned(),
            aud: USER_TOKEN_AUDIENCE.to_owned(),
            sub: user.id,
            roles: user.roles.iter().map(|role| role.name().to_owned()).collect(),
            sid: session,
            iat: now,
            exp: now + self.ttl.as_secs(),
        };
        let access_token = self.keys.sign(&claims).map_err(|error| UserError::Signing(error.to_string()))?;
        Ok(Tokens {
            access_token,
            token_type: "Bearer",
            expires_in: self.ttl.as_secs(),
            refresh_token: refresh.0,
        })
    }
}

/// 256 random bits; the database knows only the hash.
struct RefreshToken(String);

impl RefreshToken {
    fn new() -> Self {
        let bits: [u8; 32] = rand::random();
        Self(URL_SAFE_NO_PAD.encode(bits))
    }

    fn hash(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(&self.0))
    }
}

/// Logs in. Whether the address exists shows neither in the words nor in the time.
#[utoipa::path(post, path = "/api/sessions", tag = "sessions", request_body = LogIn,
    responses((status = 201, body = Tokens), (status = 401, description = "`invalid_credentials`"), (status = 429, description = "`rate_limited`")))]
pub async fn log_in(
    _: MaybeCaller,
    request: HttpRequest,
    body: Body<LogIn>,
    store: Data<Store>,
    passwords: Data<Passwords>,
    issuer: Data<Issuer>,
) -> Result<HttpResponse, UserError> {
    let LogIn { email, password } = body.value;
    let login_try = LoginTry::new(&email, client_of(&request));
    let login = store.login(&login_try).await?;
    let hash = login.as_ref().map(|login| login.password_hash.clone());
    let (true, Some(login)) = (passwords.verify(password, hash).await?, login) else {
        store.count_failure(&login_try).await?;
        return Err(UserError::InvalidCredentials);
    };
    let refresh = RefreshToken::new();
    let session = store.begin_session(&login_try, &login, &refresh.hash()).await?;
    let tokens = issuer.tokens(&login.user, session, refresh)?;
    Ok(HttpResponse::Created().insert_header((CACHE_CONTROL, "no-store")).json(tokens))
}

/// Gives new tokens for a refresh token, which is then spent.
#[utoipa::path(post, path = "/api/sessions/refresh", tag = "sessions", request_body = Refresh,
    responses((status = 200, body = Tokens), (status = 401, description = "`token_reused`, `invalid_token`")))]
pub async fn refresh(
    _: MaybeCaller,
    body: Body<Refresh>,
    store: Data<Store>,
    issuer: Data<Issuer>,
) -> Result<HttpResponse, UserError> {
    let next = RefreshToken::new();
    let spent = RefreshToken(body.value.refresh_token).hash();
    let refreshed = store.refresh(&spent, &next.hash()).await?;
    let tokens = issuer.tokens(&refreshed.user, refreshed.session, next)?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(tokens))
}

/// Ends the session that the access token belongs to.
#[utoipa::path(delete, path = "/api/sessions/current", tag = "sessions", security(("user" = [])),
    responses((status = 204), (status = 401, description = "`missing_token`")))]
pub async fn log_out(caller: Caller, store: Data<Store>) -> Result<HttpResponse, UserError> {
    let session = caller.session.ok_or(UserError::NotFound)?;
    store.end_session(session).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The keys that access tokens are verified with (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "sessions", responses((status = 200, description = "A JSON Web Key Set.")))]
pub async fn jwks(issuer: Data<Issuer>) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "public, max-age=60")).json(issuer.keys.jwks())
}

/// The client's address as the gateway made it out; it takes this header from nobody.
pub(super) fn client_of(request: &HttpRequest) -> String {
    let told = request.headers().get("x-real-ip").and_then(|value| value.to_str().ok());
    told.map(str::to_owned)
        .or_else(|| request.peer_addr().map(|peer| peer.ip().to_string()))
        .unwrap_or_default()
}
