//! What the database promises about people and their sessions. One method, one transaction.

pub mod prune;
mod sessions;

pub use sessions::{Login, LoginTry, Refreshed};

use shared::db::{Db, DbError, Row, Tx, now, query};
use shared::idempotency::{Answer, Claim};
use shared::request::{IfMatch, Page, Paging};
use uuid::Uuid;

use crate::domain::{Change, EmailAddress, NewUser, Role, Status, User};
use crate::error::UserError;

/// People and sessions. Clones share the database.
#[derive(Clone)]
pub struct Store {
    db: Db,
}

const COLUMNS: &str = "id, email, name, is_admin, deactivated, created_at, updated_at, version";

impl Store {
    /// A store in `db`, which has this service's tables.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Registers somebody, once per claim; the database decides whether the address is free.
    ///
    /// # Errors
    /// [`UserError::EmailTaken`]; and what a claim can be refused for.
    pub async fn register(
        &self,
        claim: Claim,
        new: NewUser,
        answer: impl FnOnce(&User) -> Answer,
    ) -> Result<Answer, UserError> {
        let registered = claim.once(&self.db, answer, async |tx| insert(tx, new, false).await);
        Ok(registered.await?.into_answer())
    }

    /// Makes an admin.
    ///
    /// # Errors
    /// [`UserError::EmailTaken`].
    pub async fn make_admin(&self, new: NewUser) -> Result<(), UserError> {
        let mut tx = self.db.begin().await?;
        insert(&mut tx, new, true).await?;
        Ok(tx.commit().await?)
    }

    /// Whether somebody has this address.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn is_taken(&self, email: &EmailAddress) -> Result<bool, DbError> {
        let found = query("SELECT id FROM users WHERE email_key = $1").bind(email.key());
        Ok(found.fetch_optional(&self.db).await?.is_some())
    }

    /// One person.
    ///
    /// # Errors
    /// [`UserError::NotFound`].
    pub async fn user(&self, id: Uuid) -> Result<User, UserError> {
        let found = query(format!("SELECT {COLUMNS} FROM users WHERE id = $1")).bind(id);
        let row = found.fetch_optional(&self.db).await?.ok_or(UserError::NotFound)?;
        Ok(user(&row)?)
    }

    /// The hash of a person's password.
    ///
    /// # Errors
    /// [`UserError::NotFound`].
    pub async fn password_hash(&self, id: Uuid) -> Result<String, UserError> {
        let found = query("SELECT password_hash FROM users WHERE id = $1").bind(id);
        let row = found.fetch_optional(&self.db).await?.ok_or(UserError::NotFound)?;
        Ok(row.get("password_hash")?)
    }

    /// A page of everybody, newest first.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn users(&self, paging: &Paging) -> Result<Page<User>, DbError> {
        let rows = query(format!(
            "SELECT {COLUMNS} FROM users WHERE $1 IS NULL OR id < $1 ORDER BY id DESC LIMIT $2"
        ))
        .bind(paging.cursor)
        .bind(paging.fetch())
        .fetch_all(&self.db)
        .await?;
        let users = rows.iter().map(user).collect::<Result<Vec<_>, _>>()?;
        Ok(paging.page(users, |user| user.id))
    }

    /// Changes a person, if the caller saw the current version. A new password ends every session
    /// but `session`.
    ///
    /// # Errors
    /// [`UserError::NotFound`], [`UserError::EmailTaken`], or a stale version.
    pub async fn change(
        &self,
        id: Uuid,
        version: &IfMatch,
        change: Change,
        session: Option<Uuid>,
    ) -> Result<User, UserError> {
        let mut tx = self.db.begin().await?;
        let before = locked(&mut tx, id).await?;
        version.check(before.version)?;
        let row = query(format!(
            "UPDATE users SET email = COALESCE($2, email), email_key = COALESCE($3, email_key), \
             name = COALESCE($4, name), password_hash = COALESCE($5, password_hash), \
             updated_at = $6, version = version + 1 WHERE id = $1 RETURNING {COLUMNS}"
        ))
        .bind(id)
        .bind(change.email.as_ref().map(EmailAddress::as_str))
        .bind(change.email.as_ref().map(EmailAddress::key))
        .bind(change.name.as_ref().map(|name| name.as_str()))
        .bind(change.password_hash.as_deref())
        .bind(now())
        .fetch_one(&mut tx)
        .await
        .map_err(taken)?;
        if change.password_hash.is_some() {
            sessions::revoke_all_but(&mut tx, id, session).await?;
        }
        tx.commit().await?;
        Ok(user(&row)?)
    }

    /// Deactivates a person and ends every session; it is no error if that was done before.
    ///
    /// # Errors
    /// [`UserError::NotFound`], or a stale version.
    pub async fn deactivate(&self, id: Uuid, version: &IfMatch) -> Result<(), UserError> {
        let mut tx = self.db.begin().await?;
        let before = locked(&mut tx, id).await?;
        version.check(before.version)?;
        if before.status == Status::Active {
            query(
                "UPDATE users SET deactivated = TRUE, updated_at = $2, version = version + 1 WHERE id = $1",
            )
            .bind(id)
            .bind(now())
            .execute(&mut tx)
            .await?;
            sessions::revoke_all_but(&mut tx, id, None).await?;
        }
        Ok(tx.commit().await?)
    }
}

async fn insert(tx: &mut Tx, new: NewUser, is_admin: bool) -> Result<User, UserError> {
    let row = query(format!(
        "INSERT INTO users (id, email, email_key, name, password_hash, is_admin, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING {COLUMNS}"
    ))
    .bind(Uuid::now_v7())
    .bind(new.email.as_str())
    .bind(new.email.key())
    .bind(new.name.as_str())
    .bind(new.password_hash)
    .bind(is_admin)
    .bind(now())
    .fetch_one(tx)
    .await
    .map_err(taken)?;
    Ok(user(&row)?)
}

async fn locked(tx: &mut Tx, id: Uuid) -> Result<User, UserError> {
    let found = query(format!("SELECT {COLUMNS} FROM users WHERE id = $1 FOR UPDATE")).bind(id);
    let row = found.fetch_optional(tx).await?.ok_or(UserError::NotFound)?;
    Ok(user(&row)?)
}

fn taken(error: DbError) -> UserError {
    if error.is_taken("users", "email_key") { UserError::EmailTaken } else { error.into() }
}

fn user(row: &Row) -> Result<User, DbError> {
    let is_admin: bool = row.get("is_admin")?;
    let deactivated: bool = row.get("deactivated")?;
    Ok(User {
        id: row.get("id")?,
        email: row.get("email")?,
        name: row.get("name")?,
        roles: if is_admin { vec![Role::Customer, Role::Admin] } else { vec![Role::Customer] },
        status: if deactivated { Status::Deactivated } else { Status::Active },
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
        version: row.get("version")?,
    })
}
