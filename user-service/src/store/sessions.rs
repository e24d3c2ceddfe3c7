//! Logins and refresh tokens.
//!
//! ```text
//! login ──► session ──► token 1 ──refresh──► token 2 ──refresh──► …
//!                          └── used again ──► the session is revoked (RFC 9700 §4.14.2)
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use shared::db::{Conn, DbError, Tx, now, query};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{COLUMNS, Store, user};
use crate::domain::{EmailAddress, User};
use crate::error::UserError;

const REFRESH_TOKENS_LIVE: Duration = Duration::days(30);
/// Failures are counted for so long.
const WINDOW: Duration = Duration::minutes(15);
const FAILURES: i64 = 10;

/// Somebody who may have an address wants to log in from a client.
#[derive(Debug, Clone)]
pub struct LoginTry {
    /// The address as people are found by it, if it is one.
    address: Option<String>,
    /// Whatever was given as an address, as failures are counted by it.
    digest: String,
    client: String,
}

impl LoginTry {
    /// A try with `email`, which may be anything, from the network address `client`.
    pub fn new(email: &str, client: String) -> Self {
        Self {
            address: EmailAddress::try_from(email.to_owned()).ok().map(|address| address.key()),
            digest: URL_SAFE_NO_PAD.encode(Sha256::digest(email.to_lowercase())),
            client,
        }
    }
}

/// Whose password is to be checked.
#[derive(Debug, Clone)]
pub struct Login {
    /// The person.
    pub user: User,
    /// The hash that the password must fit.
    pub password_hash: String,
}

/// A session that goes on.
#[derive(Debug, Clone)]
pub struct Refreshed {
    /// The session.
    pub session: Uuid,
    /// Whose it is.
    pub user: User,
}

impl Store {
    /// Finds whose password to check; `None` if nobody has the address or they left.
    ///
    /// # Errors
    /// [`UserError::Throttled`] after ten failures in 15 minutes.
    pub async fn login(&self, login_try: &LoginTry) -> Result<Option<Login>, UserError> {
        self.may_try(login_try).await?;
        let found = query(format!(
            "SELECT {COLUMNS}, password_hash FROM users WHERE email_key = $1 AND deactivated = FALSE"
        ))
        .bind(login_try.address.as_deref())
        .fetch_optional(&self.db)
        .await?;
        found.map(|row| Ok(Login { user: user(&row)?, password_hash: row.get("password_hash")? })).transpose()
    }

    /// Whether another password may be tried.
    ///
    /// # Errors
    /// [`UserError::Throttled`] after ten failures in 15 minutes.
    pub async fn may_try(&self, login_try: &LoginTry) -> Result<(), UserError> {
        throttled(&self.db, login_try).await
    }

    /// Counts a wrong password.
    ///
    /// # Errors
    /// [`UserError::Throttled`] if ten others, tried meanwhile, were wrong too.
    pub async fn count_failure(&self, login_try: &LoginTry) -> Result<(), UserError> {
        let (now, began) = (now(), now() - WINDOW);
        let counted = query(
            "INSERT INTO login_failures (address, client, failures, began_at) VALUES ($1, $2, 1, $3) \
             ON CONFLICT (address, client) DO UPDATE SET \
                failures = CASE WHEN login_failures.began_at < $4 THEN 1 ELSE login_failures.failures + 1 END, \
                began_at = CASE WHEN login_failures.began_at < $4 THEN $3 ELSE login_failures.began_at END \
             WHERE login_failures.began_at < $4 OR login_failures.failures < $5",
        )
        .bind(login_try.digest.as_str())
        .bind(login_try.client.as_str())
        .bind(now)
        .bind(began)
        .bind(FAILURES)
        .execute(&self.db)
        .await?;
        if counted == 0 { self.may_try(login_try).await } else { Ok(()) }
    }

    /// Begins a session whose refresh token has the hash `token`, and forgets the failures before.
    ///
    /// # Errors
    /// [`UserError::InvalidCredentials`] if the person left or took another password while this one
    /// was checked, which takes a while; [`UserError::Throttled`] if ten others were wrong meanwhile.
    pub async fn begin_session(
        &self,
        login_try: &LoginTry,
        login: &Login,
        token: &str,
    ) -> Result<Uuid, UserError> {
        let mut tx = self.db.begin().await?;
        let (session, now, user) = (Uuid::now_v7(), now(), login.user.id);
        query("SELECT id FROM users WHERE id = $1 AND password_hash = $2 AND deactivated = FALSE FOR UPDATE")
            .bind(user)
            .bind(login.password_hash.as_str())
            .fetch_optional(&mut tx)
            .await?
            .ok_or(UserError::InvalidCredentials)?;
        throttled(&mut tx, login_try).await?;
        query("DELETE FROM login_failures WHERE address = $1 AND client = $2")
            .bind(login_try.digest.as_str())
            .bind(login_try.client.as_str())
            .execute(&mut tx)
            .await?;
        query("INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(session)
            .bind(user)
            .bind(now)
            .bind(now + REFRESH_TOKENS_LIVE)
            .execute(&mut tx)
            .await?;
        keep(&mut tx, session, token).await?;
        tx.commit().await?;
        Ok(session)
    }

    /// Spends the refresh token with the hash `spent`; `next` takes its place.
    ///
    /// # Errors
    /// [`UserError::TokenReused`] if it was spent before, which revokes the session;
    /// [`UserError::InvalidToken`] if it never was, or the session is over.
    pub async fn refresh(&self, spent: &str, next: &str) -> Result<Refreshed, UserError> {
        let mut tx = self.db.begin().await?;
        let now = now();
        let found = query(
            "SELECT s.id, s.user_id, s.revoked_at, s.expires_at, t.spent_at FROM refresh_tokens t \
             JOIN sessions s ON s.id = t.session_id WHERE t.hash = $1 FOR UPDATE",
        )
        .bind(spent)
        .fetch_optional(&mut tx)
        .await?;
        let row = found.ok_or(UserError::InvalidToken)?;
        let session: Uuid = row.get("id")?;
        if row.get::<Option<OffsetDateTime>>("spent_at")?.is_some() {
            revoke(&mut tx, session).await?;
            tx.commit().await?;
            return Err(UserError::TokenReused);
        }
        let expires_at: OffsetDateTime = row.get("expires_at")?;
        if row.get::<Option<OffsetDateTime>>("revoked_at")?.is_some() || expires_at <= now {
            return Err(UserError::InvalidToken);
        }
        query("UPDATE refresh_tokens SET spent_at = $2 WHERE hash = $1")
            .bind(spent)
            .bind(now)
            .execute(&mut tx)
            .await?;
        keep(&mut tx, session, next).await?;
        query("UPDATE sessions SET expires_at = $2 WHERE id = $1")
            .bind(session)
            .bind(now + REFRESH_TOKENS_LIVE)
            .execute(&mut tx)
            .await?;
        let person = query(format!("SELECT {COLUMNS} FROM users WHERE id = $1 AND deactivated = FALSE"))
            .bind(row.get::<Uuid>("user_id")?)
            .fetch_optional(&mut tx)
            .await?;
        let user = user(&person.ok_or(UserError::InvalidToken)?)?;
        tx.commit().await?;
        Ok(Refreshed { session, user })
    }

    /// Ends a session; it is no error if it is over.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn end_session(&self, session: Uuid) -> Result<(), DbError> {
        let mut tx = self.db.begin().await?;
        revoke(&mut tx, session).await?;
        tx.commit().await
    }
}

async fn throttled<'c>(conn: impl Into<Conn<'c>>, login_try: &LoginTry) -> Result<(), UserError> {
    let now = now();
    let found = query(
        "SELECT began_at FROM login_failures \
         WHERE address = $1 AND client = $2 AND began_at >= $3 AND failures >= $4",
    )
    .bind(login_try.digest.as_str())
    .bind(login_try.client.as_str())
    .bind(now - WINDOW)
    .bind(FAILURES)
    .fetch_optional(conn)
    .await?;
    let Some(row) = found else { return Ok(()) };
    let wait = row.get::<OffsetDateTime>("began_at")? + WINDOW - now;
    Err(UserError::Throttled(wait.whole_seconds().max(1).try_into().unwrap_or(u32::MAX)))
}

async fn keep(tx: &mut Tx, session: Uuid, token: &str) -> Result<(), DbError> {
    query("INSERT INTO refresh_tokens (hash, session_id) VALUES ($1, $2)")
        .bind(token)
        .bind(session)
        .execute(tx)
        .await
        .map(drop)
}

async fn revoke(tx: &mut Tx, session: Uuid) -> Result<(), DbError> {
    query("UPDATE sessions SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
        .bind(session)
        .bind(now())
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
    .bind(now())
    .bind(kept)
    .execute(tx)
    .await
    .map(drop)
}
