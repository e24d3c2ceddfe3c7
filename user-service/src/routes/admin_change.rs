//! The record of an admin's change to another user.

use actix_web::HttpRequest;
use shared::auth::Caller;
use shared::client::Context;
use uuid::Uuid;

use super::client_address::client_address;
use crate::domain::{AdminAction, AdminChange};

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
        trace_id: Context::from_headers(request.headers()).trace_id(),
    })
}
