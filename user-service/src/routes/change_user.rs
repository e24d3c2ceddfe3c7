//! `PATCH /api/users/{id}`: another name, address or password.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use shared::auth::Caller;
use shared::body::Body;
use shared::problem::Problem;
use shared::request::{IfMatch, etag};
use utoipa::ToSchema;
use uuid::Uuid;

use super::admin_change::audited;
use super::client_address::client_address;
use super::visible_user::visible_user;
use crate::domain::{AdminAction, Change, EmailAddress, Name, Password};
use crate::error::Error;
use crate::passwords::Passwords;
use crate::store::{LoginAttempt, Store};
use crate::views::UserView;

/// The fields to change.
#[derive(ToSchema)]
pub(crate) struct ChangeUser {
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

shared::from_body! { ChangeUser { optional: email, name, password, current_password; } }

/// Changes one user.
#[utoipa::path(patch, path = "/api/users/{id}", tag = "users", security(("user" = [])),
    params(("id" = String, Path, description = "An id, or `me`."), ("If-Match" = Option<String>, Header)),
    request_body = ChangeUser,
    responses((status = 200, body = UserView), (status = 403, description = "`recent_login_required`"), (status = 409, description = "`email_taken`"), (status = 412, description = "`stale_version`"), (status = 422, description = "`validation_failed`")))]
pub(crate) async fn change_user(
    caller: Caller,
    id: Path<String>,
    if_match: IfMatch,
    request: HttpRequest,
    body: Body<ChangeUser>,
    store: Data<Store>,
    passwords: Data<Passwords>,
) -> Result<HttpResponse, Error> {
    let id = visible_user(&caller, &id, &store).await?;
    let ChangeUser { email, name, password, current_password } = body.value;
    // An access token is not enough here, because it could be stolen. An admin who changes another user
    // does not know the password.
    if caller.id == id && (email.is_some() || password.is_some()) {
        check_password(id, current_password, client_address(&request), &store, &passwords).await?;
    }
    let password_hash = match password {
        Some(password) => {
            let lane = store.lane(&client_address(&request)).await?;
            Some(passwords.hash(password, lane).await?)
        }
        None => None,
    };
    let change = Change { email, name, password_hash };
    let audited = audited(&caller, id, AdminAction::Change(change.fields()), &request);
    if audited.is_some() && change.has_secrets() {
        caller.require_recent_login()?;
    }
    let changed = store.db().transaction(async |tx| {
        if_match.check(store.lock(tx, id).await?.version)?;
        if let Some(audited) = &audited {
            store.record(tx, audited).await?;
        }
        store.change(tx, id, change, caller.session).await
    });
    let user = changed.await?;
    Ok(HttpResponse::Ok().insert_header(etag(user.version)).json(UserView::from(&user)))
}

/// A wrong password counts as a failed login, so that guessing is no easier here.
async fn check_password(
    id: Uuid,
    password: Option<String>,
    client: String,
    store: &Store,
    passwords: &Passwords,
) -> Result<(), Error> {
    let Some(password) = password else {
        let problem = Problem::of_status(StatusCode::UNPROCESSABLE_ENTITY);
        return Err(problem.field("current_password", "is missing").into());
    };
    let lane = store.lane(&client).await?;
    let attempt = LoginAttempt::new(store.user(id).await?.email.as_str(), client);
    store.check_throttle(&attempt).await?;
    if passwords.verify(password, Some(store.password_hash(id).await?), lane).await? {
        // Concurrent guesses may have reached the limit meanwhile.
        return store.check_throttle(&attempt).await;
    }
    store.db().transaction(async |tx| store.count_failure(tx, &attempt).await).await?;
    Err(Error::WrongPassword)
}
