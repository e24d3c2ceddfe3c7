//! Resources as JSON.

use serde::Serialize;
use shared::request::Page;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::{Role, Status, User};
use crate::store::AuditEntry;
use crate::tokens::Tokens;

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserView {
    id: Uuid,
    email: String,
    name: String,
    roles: Vec<RoleView>,
    status: StatusView,
    /// When the user registered.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When anything here last changed.
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    /// Counts the changes.
    version: i64,
}

/// The role of a user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Role)]
enum RoleView {
    Customer,
    Admin,
}

/// Whether a user may log in.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Status)]
enum StatusView {
    Active,
    Deactivated,
}

/// A page of users.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Users)]
pub(crate) struct UsersView {
    users: Vec<UserView>,
    next_cursor: Option<String>,
}

/// A page of the audit table.
#[derive(Debug, Serialize)]
pub(crate) struct AuditView {
    changes: Vec<AuditEntryView>,
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize)]
struct AuditEntryView {
    id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    admin_id: Uuid,
    user_id: Uuid,
    action: String,
    /// The names of the changed fields.
    fields: Vec<String>,
    client: String,
    trace_id: Option<String>,
}

/// The tokens of a session.
#[derive(Serialize, ToSchema)]
#[schema(as = Tokens)]
pub(crate) struct TokensView {
    access_token: String,
    token_type: &'static str,
    /// Seconds that the access token is good.
    expires_in: u64,
    refresh_token: String,
}

impl From<&User> for UserView {
    fn from(user: &User) -> Self {
        let role = |role: &Role| match role {
            Role::Customer => RoleView::Customer,
            Role::Admin => RoleView::Admin,
        };
        let status = match user.status {
            Status::Active => StatusView::Active,
            Status::Deactivated => StatusView::Deactivated,
        };
        Self {
            id: user.id,
            email: user.email.as_str().to_owned(),
            name: user.name.as_str().to_owned(),
            roles: user.roles.iter().map(role).collect(),
            status,
            created_at: user.created_at,
            updated_at: user.updated_at,
            version: user.version,
        }
    }
}

impl From<Page<User>> for UsersView {
    fn from(page: Page<User>) -> Self {
        Self { users: page.items.iter().map(UserView::from).collect(), next_cursor: page.next_cursor }
    }
}

impl From<Page<AuditEntry>> for AuditView {
    fn from(page: Page<AuditEntry>) -> Self {
        let entry = |entry: AuditEntry| {
            let AuditEntry { id, at, admin_id, user_id, action, fields, client, trace_id } = entry;
            AuditEntryView { id, at, admin_id, user_id, action, fields, client, trace_id }
        };
        Self { changes: page.items.into_iter().map(entry).collect(), next_cursor: page.next_cursor }
    }
}

impl From<Tokens> for TokensView {
    fn from(tokens: Tokens) -> Self {
        Self {
            access_token: tokens.access_token,
            token_type: "Bearer",
            expires_in: tokens.ttl.as_secs(),
            refresh_token: tokens.refresh_token,
        }
    }
}
