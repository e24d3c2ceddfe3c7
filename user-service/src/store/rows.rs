//! Rows into users.

use shared::db::{DbError, Row};

use crate::domain::{Role, Status, User};

/// The columns of [`user`].
pub(super) const COLUMNS: &str = "id, email, name, is_admin, deactivated, created_at, updated_at, version";

pub(super) fn user(row: &Row) -> Result<User, DbError> {
    let is_admin: bool = row.get("is_admin")?;
    let deactivated: bool = row.get("deactivated")?;
    Ok(User {
        id: row.get("id")?,
        email: row.get::<String>("email")?.try_into().map_err(invalid)?,
        name: row.get::<String>("name")?.try_into().map_err(invalid)?,
        roles: if is_admin { vec![Role::Customer, Role::Admin] } else { vec![Role::Customer] },
        status: if deactivated { Status::Deactivated } else { Status::Active },
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
        version: row.get("version")?,
    })
}

fn invalid(why: &'static str) -> DbError {
    sqlx::Error::Decode(why.into()).into()
}
