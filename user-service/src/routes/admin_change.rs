//! What an admin must have and leaves behind to change another user.

use std::time::SystemTime;

use actix_web::HttpRequest;
use shared::auth::Caller;
use shared::client::Context;
use uuid::Uuid;

use super::client_address::client_address;
use crate::domain::{AdminAction, AdminChange};
use crate::error::Error;

/// The row for the audit table; `None` if the caller changes itself.
pub(super) fn audited(
    caller: &Caller,
    user_id: Uuid,
    action: AdminAction,
    request: &HttpRequest,
) -> Option<AdminChange> {
    (caller.id != user_id).then(|| AdminChange {
        admin_id: caller.id,
        user_id,
        action,
        client: client_address(request),
        trace_id: Context::from_headers(request.headers()).trace_id().map(str::to_owned),
    })
}

/// A token may be stolen, and lives on with its session. A password that was given a moment ago is the admin's own.
pub(super) fn require_recent_login(caller: &Caller) -> Result<(), Error> {
    if caller.has_logged_in_recently(SystemTime::now()) { Ok(()) } else { Err(Error::LoginNotRecent) }
}
