//! The user in the path `/api/users/{id}`.

use shared::auth::Caller;
use shared::request::PathId;
use uuid::Uuid;

use crate::error::Error;

/// The id in the path, or the caller's for `me`; [`Error::NotFound`] if the caller may not see that user.
pub(super) fn visible_user(caller: &Caller, id: &str) -> Result<Uuid, Error> {
    let id = if id == "me" { caller.id } else { id.parse::<PathId>()?.0 };
    if caller.may_see(id) { Ok(id) } else { Err(Error::NotFound) }
}
