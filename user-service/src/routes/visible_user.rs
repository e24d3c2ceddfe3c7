//! The user in the path `/api/users/{id}`.

use shared::auth::Caller;
use shared::request::PathId;
use uuid::Uuid;

use crate::error::Error;
use crate::store::Store;

/// The id in the path, or the caller's for `me`; [`Error::NotFound`] if the caller may not see that user, and
/// [`Error::InvalidToken`] if the caller is no longer an admin, or its session has ended.
pub(super) async fn visible_user(caller: &Caller, id: &str, store: &Store) -> Result<Uuid, Error> {
    let id = if id == "me" { caller.id } else { id.parse::<PathId>()?.0 };
    if !caller.may_see(id) {
        return Err(Error::NotFound);
    }
    if caller.id != id {
        store.must_be_active_admin(caller.id, caller.session).await?;
    }
    Ok(id)
}
