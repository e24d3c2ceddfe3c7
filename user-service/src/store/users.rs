//! Users.

use shared::db::{DbError, Tx, query};
use shared::request::{Page, Paging};
use uuid::Uuid;

use super::Store;
use super::rows::{COLUMNS, user};
use super::sessions::revoke_all_but;
use crate::domain::{Change, EmailAddress, NewUser, Role, User};
use crate::error::Error;

impl Store {
    /// The database decides whether the address is free; [`Error::EmailTaken`] if not.
    pub async fn register(&self, tx: &mut Tx, new: NewUser) -> Result<User, Error> {
        let row = query(format!(
            "INSERT INTO users (id, email, email_key, name, password_hash, is_admin, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING {COLUMNS}"
        ))
        .bind(Uuid::now_v7())
        .bind(new.email.as_str())
        .bind(new.email.key())
        .bind(new.name.as_str())
        .bind(new.password_hash)
        .bind(new.role == Role::Admin)
        .bind(tx.now())
        .fetch_one(tx)
        .await
        .map_err(taken)?;
        Ok(user(&row)?)
    }

    pub async fn is_taken(&self, email: &EmailAddress) -> Result<bool, DbError> {
        let found = query("SELECT id FROM users WHERE email_key = $1").bind(email.key());
        Ok(found.fetch_optional(&self.db).await?.is_some())
    }

    /// The user as it is now. Concurrent calls share a query: order-service asks for the customer of each new order.
    pub async fn user(&self, id: Uuid) -> Result<User, Error> {
        let found = self.users_by_id.row(id).await.map_err(|error| error.problem())?;
        let row = found.ok_or(Error::NotFound)?;
        Ok(user(&row)?)
    }

    /// [`Error::InvalidToken`] unless `id` is an active admin whose `session` has not ended: a token says only what
    /// was true when it was issued.
    pub async fn must_be_active_admin(&self, id: Uuid, session: Option<Uuid>) -> Result<(), Error> {
        let found = query(
            "SELECT u.id FROM users u JOIN sessions s ON s.user_id = u.id \
             WHERE u.id = $1 AND u.is_admin = TRUE AND u.deactivated = FALSE \
             AND s.id = $2 AND s.revoked_at IS NULL AND s.expires_at > $3",
        )
        .bind(id)
        .bind(session)
        .bind(self.db.now());
        found.fetch_optional(&self.db).await?.map(drop).ok_or(Error::InvalidToken)
    }

    pub async fn password_hash(&self, id: Uuid) -> Result<String, Error> {
        let found = query("SELECT password_hash FROM users WHERE id = $1").bind(id);
        let row = found.fetch_optional(&self.db).await?.ok_or(Error::NotFound)?;
        Ok(row.get("password_hash")?)
    }

    /// A page of all users, newest first.
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

    /// The user, locked until the end of the transaction.
    pub async fn lock(&self, tx: &mut Tx, id: Uuid) -> Result<User, Error> {
        let found = query(format!("SELECT {COLUMNS} FROM users WHERE id = $1 FOR UPDATE")).bind(id);
        let row = found.fetch_optional(tx).await?.ok_or(Error::NotFound)?;
        Ok(user(&row)?)
    }

    /// Changes a locked user. A new password ends every session but `kept`.
    pub async fn change(
        &self,
        tx: &mut Tx,
        id: Uuid,
        change: Change,
        kept: Option<Uuid>,
    ) -> Result<User, Error> {
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
        .bind(tx.now())
        .fetch_one(&mut *tx)
        .await
        .map_err(taken)?;
        if change.password_hash.is_some() {
            revoke_all_but(tx, id, kept).await?;
        }
        Ok(user(&row)?)
    }

    /// Deactivates a user and ends every session; without effect the second time.
    pub async fn deactivate(&self, tx: &mut Tx, id: Uuid) -> Result<(), Error> {
        query(
            "UPDATE users SET deactivated = TRUE, updated_at = $2, version = version + 1 \
             WHERE id = $1 AND deactivated = FALSE",
        )
        .bind(id)
        .bind(tx.now())
        .execute(&mut *tx)
        .await?;
        Ok(revoke_all_but(tx, id, None).await?)
    }
}

fn taken(error: DbError) -> Error {
    if error.is_taken("users", "email_key") { Error::EmailTaken } else { error.into() }
}
