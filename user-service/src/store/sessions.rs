//! Sessions and their refresh tokens.
//!
//! ```text
//! login ──► session ──► token 1 ──refresh──► token 2 ──refresh──► …
//!                          └── used again ──► the session is revoked (RFC 9700 §4.14.2)
//! ```

use shared::db::{DbError, Tx, query};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::Store;
use super::login_attempts::{Login, LoginAttempt, check_throttle, forget_failures};
use super::rows::{COLUMNS, user};
use crate::domain::User;
use crate::error::Error;

const REFRESH_TOKENS_LIVE: Duration = Duration::days(30);

/// What became of a refresh token that was presented.
#[derive(Debug, Clone)]
pub enum Refreshed {
    /// It is spent and the next one takes its place.
    Renewed { session: Uuid, user: User },
    /// It was spent before, so the session is revoked, which the caller must commit.
    Reused,
}

impl Store {
    /// Begins a session whose refresh token has the hash `token`, and forgets earlier failures.
    ///
    /// [`Error::InvalidCredentials`] if the user was deactivated or took another password while this one
    /// was checked, which takes a while; [`Error::Throttled`] if ten others were wrong meanwhile.
    pub async fn begin_session(
        &self,
        tx: &mut Tx,
        attempt: &LoginAttempt,
        login: &Login,
        token: &str,
    ) -> Result<Uuid, Error> {
        let (session, now, user) = (Uuid::now_v7(), tx.now(), login.user.id);
        query("SELECT id FROM users WHERE id = $1 AND password_hash = $2 AND deactivated = FALSE FOR UPDATE")
            .bind(user)
            .bind(login.password_hash.as_str())
            .fetch_optional(&mut *tx)
            .await?
            .ok_or(Error::InvalidCredentials)?;
        check_throttle(&mut *tx, attempt).await?;
        forget_failures(tx, attempt).await?;
        query("INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(session)
            .bind(user)
            .bind(now)
            .bind(now + REFRESH_TOKENS_LIVE)
            .execute(&mut *tx)
            .await?;
        insert_token(tx, session, token).await?;
        Ok(session)
    }

    /// Spends the refresh token with the hash `spent`; `next` takes its place.
    /// [`Error::InvalidToken`] if there is no such token, or its session is over.
    pub async fn refresh(&self, tx: &mut Tx, spent: &str, next: &str) -> Result<Refreshed, Error> {
        let now = tx.now();
        let found = query(
            "SELECT s.id, s.user_id, s.revoked_at, s.expires_at, t.spent_at FROM refresh_tokens t \
             JOIN sessions s ON s.id = t.session_id WHERE t.hash = $1 FOR UPDATE",
        )
        .bind(spent)
        .fetch_optional(&mut *tx)
        .await?;
        let row = found.ok_or(Error::InvalidToken)?;
        let session: Uuid = row.get("id")?;
        if row.get::<Option<OffsetDateTime>>("spent_at")?.is_some() {
            self.end_session(tx, session).await?;
            return Ok(Refreshed::Reused);
        }
        let expires_at: OffsetDateTime = row.get("expires_at")?;
        if row.get::<Option<OffsetDateTime>>("revoked_at")?.is_some() || expires_at <= now {
            return Err(Error::InvalidToken);
        }
        query("UPDATE refresh_tokens SET spent_at = $2 WHERE hash = $1")
            .bind(spent)
            .bind(now)
            .execute(&mut *tx)
            .await?;
        insert_token(tx, session, next).await?;
        query("UPDATE sessions SET expires_at = $2 WHERE id = $1")
            .bind(session)
            .bind(now + REFRESH_TOKENS_LIVE)
            .execute(&mut *tx)
            .await?;
        let found = query(format!("SELECT {COLUMNS} FROM users WHERE id = $1 AND deactivated = FALSE"))
            .bind(row.get::<Uuid>("user_id")?)
            .fetch_optional(tx)
            .await?;
        let user = user(&found.ok_or(Error::InvalidToken)?)?;
        Ok(Refreshed::Renewed { session, user })
    }

    /// Ends a session; without effect if it is over.
    pub async fn end_session(&self, tx: &mut Tx, session: Uuid) -> Result<(), DbError> {
        query("UPDATE sessions SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
            .bind(session)
            .bind(tx.now())
            .execute(tx)
            .await
            .map(drop)
    }
}

async fn insert_token(tx: &mut Tx, session: Uuid, token: &str) -> Result<(), DbError> {
    query("INSERT INTO refresh_tokens (hash, session_id) VALUES ($1, $2)")
        .bind(token)
        .bind(session)
        .execute(tx)
        .await
        .map(drop)
}

pub(super) async fn revoke_all_but(tx: &mut Tx, user: Uuid, kept: Option<Uuid>) -> Result<(), DbError> {
    query(
        "UPDATE sessions SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL \
         AND ($3 IS NULL OR id <> $3)",
    )
    .bind(user)
    .bind(tx.now())
    .bind(kept)
    .execute(tx)
    .await
    .map(drop)
}
