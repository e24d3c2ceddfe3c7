//! `POST /api/users`: somebody registers.

use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::web::Data;
use shared::auth::MaybeCaller;
use shared::body::{Body, Fields, FromBody};
use shared::idempotency::{Answer, IdempotencyKey};
use shared::request::etag;
use utoipa::ToSchema;

use crate::domain::{EmailAddress, Name, NewUser, Password, User};
use crate::error::UserError;
use crate::passwords::Passwords;
use crate::store::Store;

/// What somebody tells to register.
#[derive(Debug, ToSchema)]
pub struct Register {
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

impl FromBody for Register {
    fn from_body(fields: &mut Fields<'_>) -> Option<Self> {
        let (email, name) = (fields.required("email"), fields.required("name"));
        let password = fields.required("password");
        Some(Self { email: email?, name: name?, password: password? })
    }
}

/// Registers somebody.
#[utoipa::path(post, path = "/api/users", tag = "users", request_body = Register,
    params(("Idempotency-Key" = Option<String>, Header, description = "Sent twice, it happens once.")),
    responses((status = 201, body = User), (status = 409, description = "`email_taken`"), (status = 422, description = "`validation_failed`")))]
pub async fn register(
    _: MaybeCaller,
    key: IdempotencyKey,
    body: Body<Register>,
    store: Data<Store>,
    passwords: Data<Passwords>,
) -> Result<Answer, UserError> {
    let claim = key.claim(None, &passwords.sealed(&body.bytes)?)?;
    let Register { email, name, password } = body.value;
    let password_hash = passwords.hash(password).await?;
    store.register(claim, NewUser { email, name, password_hash }, registered).await
}

fn registered(user: &User) -> Answer {
    Answer::json(StatusCode::CREATED, user)
        .header((LOCATION, format!("/api/users/{}", user.id)))
        .header(etag(user.version))
}
