//! Attempts to log in: ten failures with one address from one client within 15 minutes, and the client
//! has to wait for the end of the window.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use shared::db::{Conn, DbError, Tx, query};
use time::{Duration, OffsetDateTime};

use super::Store;
use super::rows::{COLUMNS, user};
use crate::domain::{EmailAddress, User};
use crate::error::Error;

pub(super) const WINDOW: Duration = Duration::minutes(15);
const MAX_FAILURES: i64 = 10;

#[derive(Debug, Clone)]
pub struct LoginAttempt {
    /// What users are found by; `None` if it is not an email address.
    email_key: Option<String>,
    /// Of the text that was sent as an address, whatever it is: failures are counted by it.
    digest: String,
    client: String,
}

impl LoginAttempt {
    /// An attempt with `email`, which may be any text, from the network address `client`.
    pub fn new(email: &str, client: String) -> Self {
        Self {
            email_key: EmailAddress::try_from(email.to_owned()).ok().map(|email| email.key()),
            digest: URL_SAFE_NO_PAD.encode(Sha256::digest(email.to_lowercase())),
            client,
        }
    }
}

/// The user to log in, and the hash that the password must match.
#[derive(Debug, Clone)]
pub struct Login {
    pub user: User,
    pub password_hash: String,
}

impl Store {
    /// The active user with the address, if there is one; [`Error::Throttled`] after ten failures.
    pub async fn login(&self, attempt: &LoginAttempt) -> Result<Option<Login>, Error> {
        self.check_throttle(attempt).await?;
        let found = query(format!(
            "SELECT {COLUMNS}, password_hash FROM users WHERE email_key = $1 AND deactivated = FALSE"
        ))
        .bind(attempt.email_key.as_deref())
        .fetch_optional(&self.db)
        .await?;
        found.map(|row| Ok(Login { user: user(&row)?, password_hash: row.get("password_hash")? })).transpose()
    }

    /// [`Error::Throttled`] after ten failures.
    pub async fn check_throttle(&self, attempt: &LoginAttempt) -> Result<(), Error> {
        check_throttle(&self.db, attempt).await
    }

    /// Counts a wrong password; [`Error::Throttled`] if ten concurrent ones were counted before.
    pub async fn count_failure(&self, tx: &mut Tx, attempt: &LoginAttempt) -> Result<(), Error> {
        let now = tx.now();
        let began = now - WINDOW;
        let counted = query(
            "INSERT INTO login_failures (address, client, failures, began_at) VALUES ($1, $2, 1, $3) \
             ON CONFLICT (address, client) DO UPDATE SET \
                failures = CASE WHEN login_failures.began_at < $4 THEN 1 ELSE login_failures.failures + 1 END, \
                began_at = CASE WHEN login_failures.began_at < $4 THEN $3 ELSE login_failures.began_at END \
             WHERE login_failures.began_at < $4 OR login_failures.failures < $5",
        )
        .bind(attempt.digest.as_str())
        .bind(attempt.client.as_str())
        .bind(now)
        .bind(began)
        .bind(MAX_FAILURES)
        .execute(&mut *tx)
        .await?;
        if counted == 0 { check_throttle(tx, attempt).await } else { Ok(()) }
    }
}

pub(super) async fn check_throttle<'c>(
    conn: impl Into<Conn<'c>>,
    attempt: &LoginAttempt,
) -> Result<(), Error> {
    let conn = conn.into();
    let now = conn.now();
    let found = query(
        "SELECT began_at FROM login_failures \
         WHERE address = $1 AND client = $2 AND began_at >= $3 AND failures >= $4",
    )
    .bind(attempt.digest.as_str())
    .bind(attempt.client.as_str())
    .bind(now - WINDOW)
    .bind(MAX_FAILURES)
    .fetch_optional(conn)
    .await?;
    let Some(row) = found else { return Ok(()) };
    let wait = row.get::<OffsetDateTime>("began_at")? + WINDOW - now;
    Err(Error::Throttled(wait.whole_seconds().max(1).try_into().unwrap_or(u32::MAX)))
}

pub(super) async fn forget_failures(tx: &mut Tx, attempt: &LoginAttempt) -> Result<(), DbError> {
    query("DELETE FROM login_failures WHERE address = $1 AND client = $2")
        .bind(attempt.digest.as_str())
        .bind(attempt.client.as_str())
        .execute(tx)
        .await
        .map(drop)
}
