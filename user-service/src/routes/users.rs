//! `/api/users` and `/api/users/{id}`: who is there, and changing oneself.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse, http::StatusCode};
use serde::Serialize;
use shared::auth::{Admin, Caller};
use shared::body::{Body, Fields, FromBody};
use shared::problem::Problem;
use shared::request::{IfMatch, Paging, PathId, etag};
use utoipa::ToSchema;
use uuid::Uuid;

use super::sessions::client_of;
use crate::domain::{Change, EmailAddress, Name, Password, User};
use crate::error::UserError;
use crate::passwords::Passwords;
use crate::store::{LoginTry, Store};

/// A page of people.
#[derive(Serialize, ToSchema)]
pub struct Users {
    users: Vec<User>,
    next_cursor: Option<String>,
}

/// What a person changes about themselves.
#[derive(Debug, Default, ToSchema)]
pub struct ChangeUser {
    /// A new address; needs `current_password`.
    #[schema(value_type = Option<String>)]
    email: Option<EmailAddress>,
    /// A new name.
    #[schema(value_type = Option<String>)]
    name: Option<Name>,
    /// A new password; needs `current_password`, and ends all other sessions.
    #[schema(value_type = Option<String>)]
    password: Option<Password>,
    /// The password until now.
    current_password: Option<String>,
}

impl FromBody for ChangeUser {
    fn from_body(fields: &mut Fields<'_>) -> Option<Self> {
        let (email, name) = (fields.optional("email"), fields.optional("name"));
        let password = fields.optional("password");
        let current_password = fields.optional("current_password");
        Some(Self { email: email?, name: name?, password: password?, current_password: current_password? })
    }
}

/// Lists everybody, newest first.
#[utoipa::path(get, path = "/api/users", tag = "users", security(("user" = [])),
    params(("limit" = Option<u8>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Users), (status = 403, description = "`forbidden`")))]
pub async fn list(_: Admin, paging: Paging, store: Data<Store>) -> Result<HttpResponse, UserError> {
    let page = store.users(&paging).await?;
    Ok(HttpResponse::Ok().json(Users { users: page.items, next_cursor: page.next_cursor }))
}

/// Reads one person.
#[utoipa::path(get, path = "/api/users/{id}", tag = "users", security(("user" = [])),
    params(("id" = String, Path, description = "An id, or `me`.")),
    responses((status = 200, body = User), (status = 404, description = "`not_found`")))]
pub async fn read(caller: Caller, id: Path<String>, store: Data<Store>) -> Result<HttpResponse, UserError> {
    let id = visible(&caller, &id)?;
    let user = store.user(id).await?;
    Ok(HttpResponse::Ok().insert_header(etag(user.version)).json(user))
}

/// Changes one person.
#[utoipa::path(patch, path = "/api/users/{id}", tag = "users", security(("user" = [])),
    params(("id" = String, Path, description = "An id, or `me`."), ("If-Match" = Option<String>, Header)),
    request_body = ChangeUser,
    responses((status = 200, body = User), (status = 409, description = "`email_taken`"), (status = 412, description = "`stale_version`"), (status = 422, description = "`validation_failed`")))]
pub async fn change(
    caller: Caller,
    id: Path<String>,
    version: IfMatch,
    request: HttpRequest,
    body: Body<ChangeUser>,
    store: Data<Store>,
    passwords: Data<Passwords>,
) -> Result<HttpResponse, UserError> {
    let id = visible(&caller, &id)?;
    let ChangeUser { email, name, password, current_password } = body.value;
    if email.is_some() || password.is_some() {
        confirm(&caller, id, current_password, client_of(&request), &store, &passwords).await?;
    }
    let password_hash = match password {
        Some(password) => Some(passwords.hash(password).await?),
        None => None,
    };
    let change = Change { email, name, password_hash };
    let user = store.change(id, &version, change, caller.session).await?;
    Ok(HttpResponse::build(StatusCode::OK).insert_header(etag(user.version)).json(user))
}

/// Deactivates one person.
#[utoipa::path(delete, path = "/api/users/{id}", tag = "users", security(("user" = [])),
    params(("id" = String, Path, description = "An id, or `me`."), ("If-Match" = Option<String>, Header)),
    responses((status = 204), (status = 404, description = "`not_found`"), (status = 412, description = "`stale_version`")))]
pub async fn deactivate(
    caller: Caller,
    id: Path<String>,
    version: IfMatch,
    store: Data<Store>,
) -> Result<HttpResponse, UserError> {
    store.deactivate(visible(&caller, &id)?, &version).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The person whom the path names, if the caller may see them.
fn visible(caller: &Caller, id: &str) -> Result<Uuid, UserError> {
    let id = if id == "me" { caller.id } else { id.parse::<PathId>()?.0 };
    if caller.may_see(id) { Ok(id) } else { Err(UserError::NotFound) }
}

/// Who changes their own secrets shows that they know the password: a token could be stolen. An admin
/// who changes somebody else's does not know it.
async fn confirm(
    caller: &Caller,
    id: Uuid,
    current: Option<String>,
    client: String,
    store: &Store,
    passwords: &Passwords,
) -> Result<(), UserError> {
    if caller.id != id {
        return Ok(());
    }
    let Some(current) = current else {
        let problem = Problem::of_status(StatusCode::UNPROCESSABLE_ENTITY);
        return Err(problem.field("current_password", "is missing").into());
    };
    // Whoever stole a token may guess here no more often than at the login.
    let guess = LoginTry::new(&store.user(id).await?.email, client);
    store.may_try(&guess).await?;
    if passwords.verify(current, Some(store.password_hash(id).await?)).await? {
        return Ok(());
    }
    store.count_failure(&guess).await?;
    Err(UserError::WrongPassword)
}
