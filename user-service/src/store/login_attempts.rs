//! Attempts to log in. Failures within 15 minutes are counted three times; at a limit, the next attempt has to wait
//! for the end of the window:
//!
//! | counted by | limit | against |
//! |---|---|---|
//! | account and client | 10 | guessing one password from one place; others can still log in |
//! | account | 100 | guessing one password from many places |
//! | client | 100 | trying a few passwords on each of many accounts |
//!
//! The counter of the account does not count for a client that has logged in to it within 90 days: strangers cannot
//! lock out the owner, only keep the owner from new places.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use shared::db::{Conn, DbError, Tx, query};
use time::{Duration, OffsetDateTime};

use super::Store;
use super::rows::{COLUMNS, user};
use crate::domain::{EmailAddress, User};
use crate::error::Error;
use crate::passwords::Lane;

pub(super) const WINDOW: Duration = Duration::minutes(15);
/// How long a client is known after a login.
pub(super) const KNOWN: Duration = Duration::days(90);
/// Known clients of an account; the one with the oldest login is forgotten first.
const MAX_KNOWN: i64 = 20;
/// Stands for every account, or for every client, in a row that counts all of them.
const ANY: &str = "*";
const MAX_BY_BOTH: i64 = 10;
const MAX_BY_ACCOUNT: i64 = 100;
const MAX_BY_CLIENT: i64 = 100;

#[derive(Debug, Clone)]
pub struct LoginAttempt {
    /// The key by which users are found; `None` if the text is not an email address.
    email_key: Option<String>,
    /// The digest of the text that was sent as an address, even if it is none. Failures are counted by it.
    digest: String,
    client: String,
}

impl LoginAttempt {
    /// An attempt with `email`, which may be any text, from the client network `client`.
    pub fn new(email: &str, client: String) -> Self {
        Self {
            email_key: EmailAddress::try_from(email.to_owned()).ok().map(|email| email.key()),
            digest: URL_SAFE_NO_PAD.encode(Sha256::digest(email.to_lowercase())),
            client,
        }
    }
}

impl LoginAttempt {
    /// Account, client and limit of each counter, always in this order, so that no two attempts wait for each
    /// other. That of the account comes first: if it is full and does not count, the others must not be full yet.
    fn counters(&self) -> [(&str, &str, i64); 3] {
        [
            (&self.digest, ANY, MAX_BY_ACCOUNT),
            (ANY, &self.client, MAX_BY_CLIENT),
            (&self.digest, &self.client, MAX_BY_BOTH),
        ]
    }
}

/// The user to log in, and the hash that the password must match.
#[derive(Debug, Clone)]
pub struct Login {
    pub user: User,
    pub password_hash: String,
}

impl Store {
    /// The active user with the address, if there is one; [`Error::Throttled`] after too many failures.
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

    /// [`Error::Throttled`] after too many failures.
    pub async fn check_throttle(&self, attempt: &LoginAttempt) -> Result<(), Error> {
        check_throttle(&self.db, attempt).await
    }

    /// The lane of a client network, by what it did with any account.
    pub async fn lane(&self, client: &str) -> Result<Lane, Error> {
        let now = self.db.now();
        let found = query(
            "SELECT 'failed' AS history FROM login_failures \
             WHERE address = $1 AND client = $2 AND began_at >= $3 \
             UNION SELECT 'known' FROM known_clients WHERE client = $2 AND seen_at >= $4 \
             ORDER BY history LIMIT 1",
        )
        .bind(ANY)
        .bind(client)
        .bind(now - WINDOW)
        .bind(now - KNOWN)
        .fetch_optional(&self.db)
        .await?;
        let history: Option<String> = found.map(|row| row.get("history")).transpose()?;
        Ok(match history.as_deref() {
            Some("failed") => Lane::Slow,
            Some(_) => Lane::Known,
            None => Lane::New,
        })
    }

    /// Counts a wrong password; [`Error::Throttled`] if concurrent ones have reached a limit before.
    pub async fn count_failure(&self, tx: &mut Tx, attempt: &LoginAttempt) -> Result<(), Error> {
        let now = tx.now();
        let began = now - WINDOW;
        for (address, client, max) in attempt.counters() {
            let counted = query(
                "INSERT INTO login_failures (address, client, failures, began_at) VALUES ($1, $2, 1, $3) \
                 ON CONFLICT (address, client) DO UPDATE SET failures = \
                    CASE WHEN login_failures.began_at < $4 THEN 1 ELSE login_failures.failures + 1 END, \
                    began_at = CASE WHEN login_failures.began_at < $4 THEN $3 ELSE login_failures.began_at END \
                 WHERE login_failures.began_at < $4 OR login_failures.failures < $5",
            )
            .bind(address)
            .bind(client)
            .bind(now)
            .bind(began)
            .bind(max)
            .execute(&mut *tx)
            .await?;
            if counted == 0 {
                check_throttle(&mut *tx, attempt).await?;
            }
        }
        Ok(())
    }
}

pub(super) async fn check_throttle<'c>(
    conn: impl Into<Conn<'c>>,
    attempt: &LoginAttempt,
) -> Result<(), Error> {
    let conn = conn.into();
    let now = conn.now();
    let [account, client, both] = attempt.counters();
    let found = query(
        "SELECT began_at FROM login_failures WHERE began_at >= $1 AND ( \
            (address = $2 AND client = $3 AND failures >= $4) \
            OR (address = $2 AND client = $5 AND failures >= $6 AND NOT EXISTS ( \
                SELECT 1 FROM known_clients k WHERE k.address = $2 AND k.client = $3 AND k.seen_at >= $8)) \
            OR (address = $5 AND client = $3 AND failures >= $7)) \
         ORDER BY began_at DESC LIMIT 1",
    )
    .bind(now - WINDOW)
    .bind(both.0)
    .bind(both.1)
    .bind(both.2)
    .bind(ANY)
    .bind(account.2)
    .bind(client.2)
    .bind(now - KNOWN)
    .fetch_optional(conn)
    .await?;
    let Some(row) = found else { return Ok(()) };
    let wait = row.get::<OffsetDateTime>("began_at")? + WINDOW - now;
    Err(Error::Throttled(wait.whole_seconds().max(1).try_into().unwrap_or(u32::MAX)))
}

/// Forgets the failures of this account from this client. Those that are counted for all accounts or all clients
/// stay: otherwise an attacker could forget them with an account of his own.
pub(super) async fn forget_failures(tx: &mut Tx, attempt: &LoginAttempt) -> Result<(), DbError> {
    query("DELETE FROM login_failures WHERE address = $1 AND client = $2")
        .bind(attempt.digest.as_str())
        .bind(attempt.client.as_str())
        .execute(tx)
        .await
        .map(drop)
}

/// Remembers that this client has logged in to this account.
pub(super) async fn remember_client(tx: &mut Tx, attempt: &LoginAttempt) -> Result<(), DbError> {
    let now = tx.now();
    query(
        "INSERT INTO known_clients (address, client, seen_at) VALUES ($1, $2, $3) \
         ON CONFLICT (address, client) DO UPDATE SET seen_at = excluded.seen_at",
    )
    .bind(attempt.digest.as_str())
    .bind(attempt.client.as_str())
    .bind(now)
    .execute(&mut *tx)
    .await?;
    query(
        "DELETE FROM known_clients WHERE address = $1 AND client NOT IN \
         (SELECT client FROM known_clients WHERE address = $1 ORDER BY seen_at DESC, client LIMIT $2)",
    )
    .bind(attempt.digest.as_str())
    .bind(MAX_KNOWN)
    .execute(tx)
    .await
    .map(drop)
}
