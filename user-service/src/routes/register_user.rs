//! `POST /api/users`: registers a user, once per idempotency key.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::web::Data;
use shared::auth::MaybeCaller;
use shared::body::Body;
use shared::idempotency::{IdempotencyKey, StoredResponse};
use shared::request::etag;
use utoipa::ToSchema;

use super::client_address::client_address;
use crate::domain::{EmailAddress, Name, NewUser, Password, Role, User};
use crate::error::Error;
use crate::passwords::Passwords;
use crate::store::Store;
use crate::views::UserView;

/// A registration.
#[derive(ToSchema)]
#[schema(as = Register)]
pub(crate) struct RegisterUser {
    /// An email address that nobody registered with.
    #[schema(value_type = String)]
    email: EmailAddress,
    /// 1 to 100 characters.
    #[schema(value_type = String)]
    name: Name,
    /// 10 to 128 characters.
    #[schema(value_type = String)]
    password: Password,
}

shared::from_body! { RegisterUser { required: email, name, password; } }

/// Registers a user.
#[utoipa::path(post, path = "/api/users", tag = "users", request_body = RegisterUser,
    params(("Idempotency-Key" = Option<String>, Header, description = "Sent twice, it happens once.")),
    responses((status = 201, body = UserView), (status = 409, description = "`email_taken`"), (status = 422, description = "`validation_failed`")))]
pub(crate) async fn register_user(
    _: MaybeCaller,
    key: IdempotencyKey,
    request: HttpRequest,
    body: Body<RegisterUser>,
    store: Data<Store>,
    passwords: Data<Passwords>,
) -> Result<StoredResponse, Error> {
    let claim = key.claim(None, &passwords.seal(&body.bytes)?)?;
    let RegisterUser { email, name, password } = body.value;
    let lane = store.lane(&client_address(&request)).await?;
    let password_hash = passwords.hash(password, lane).await?;
    let new = NewUser { email, name, password_hash, role: Role::Customer };
    let done = claim.once(store.db(), created, async |tx| store.register(tx, new).await).await?;
    Ok(done.into_stored())
}

fn created(user: &User) -> StoredResponse {
    StoredResponse::json(StatusCode::CREATED, &UserView::from(user))
        .header((LOCATION, format!("/api/users/{}", user.id)))
        .header(etag(user.version))
}
