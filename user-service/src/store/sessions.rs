//! Sessions and their refresh tokens.
//!
//! ```text
//! login ──► session ──► token 1 ──refresh──► token 2 ──refresh──► …
//!                          ├── again within 20 s, token 2 unused: token 2 once more
//!                          └── used again: the session is revoked (RFC 9700 §4.14.2)
//! ```
//!
//! Spent tokens are deleted soon. What is left of them is the hash of their family in the session: a token of that
//! family that is not in the table is a spent one.

use shared::db::{DbError, Row, Tx, query};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::Store;
use super::login_attempts::{Login, LoginAttempt, check_throttle, forget_failures, remember_client};
use super::rows::{COLUMNS, user};
use crate::domain::{Session, User};
use crate::error::Error;
use crate::tokens::{RefreshToken, Salt};

const REFRESH_TOKENS_LIVE: Duration = Duration::days(30);
/// A client whose answer was lost may send the spent token again for so long.
pub(super) const GRACE: Duration = Duration::seconds(20);

/// The result of presenting a refresh token.
#[derive(Debug, Clone)]
pub enum Refreshed {
    /// The token is spent, and `next` replaces it.
    Renewed { session: Session, user: User, next: RefreshToken },
    /// The token was spent before, so the session is revoked, which the caller must commit.
    Reused,
}

impl Store {
    /// Begins a session with its first refresh token, forgets earlier failures, and remembers the client.
    ///
    /// [`Error::InvalidCredentials`] if the user was deactivated or took another password while this one
    /// was checked, which takes a while; [`Error::Throttled`] if ten others were wrong meanwhile.
    pub async fn begin_session(
        &self,
        tx: &mut Tx,
        attempt: &LoginAttempt,
        login: &Login,
        token: &RefreshToken,
    ) -> Result<Session, Error> {
        let (session, user) = (Session { id: Uuid::now_v7(), began_at: tx.now() }, login.user.id);
        query("SELECT id FROM users WHERE id = $1 AND password_hash = $2 AND deactivated = FALSE FOR UPDATE")
            .bind(user)
            .bind(login.password_hash.as_str())
            .fetch_optional(&mut *tx)
            .await?
            .ok_or(Error::InvalidCredentials)?;
        check_throttle(&mut *tx, attempt).await?;
        forget_failures(tx, attempt).await?;
        remember_client(tx, attempt).await?;
        query(
            "INSERT INTO sessions (id, user_id, created_at, expires_at, family) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(session.id)
        .bind(user)
        .bind(session.began_at)
        .bind(session.began_at + REFRESH_TOKENS_LIVE)
        .bind(token.family_hash())
        .execute(&mut *tx)
        .await?;
        insert_token(tx, session.id, token).await?;
        Ok(session)
    }

    /// Spends a refresh token; a new one takes its place.
    /// [`Error::InvalidToken`] if there is no such token, or its session is over.
    pub async fn refresh(&self, tx: &mut Tx, token: &RefreshToken) -> Result<Refreshed, Error> {
        let now = tx.now();
        let found = query(
            "SELECT s.id, s.user_id, s.created_at, s.revoked_at, s.expires_at, t.spent_at, t.salt \
             FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE t.hash = $1 FOR UPDATE",
        )
        .bind(token.hash())
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = found else { return self.refuse_unknown(tx, token).await };
        let session = Session { id: row.get("id")?, began_at: row.get("created_at")? };
        let is_over = row.get::<Option<OffsetDateTime>>("revoked_at")?.is_some()
            || row.get::<OffsetDateTime>("expires_at")? <= now
            // An older version let sessions live for longer.
            || session.ends_at() <= now;
        let next = match row.get::<Option<OffsetDateTime>>("spent_at")? {
            Some(spent_at) => {
                let repeated =
                    if is_over { None } else { successor(tx, token, &row, now - spent_at).await? };
                let Some(next) = repeated else {
                    self.end_session(tx, session.id).await?;
                    return Ok(Refreshed::Reused);
                };
                next
            }
            None if is_over => return Err(Error::InvalidToken),
            None => spend(tx, token, session, now).await?,
        };
        let found = query(format!("SELECT {COLUMNS} FROM users WHERE id = $1 AND deactivated = FALSE"))
            .bind(row.get::<Uuid>("user_id")?)
            .fetch_optional(tx)
            .await?;
        let user = user(&found.ok_or(Error::InvalidToken)?)?;
        Ok(Refreshed::Renewed { session, user, next })
    }

    /// A token that is not in the table: a spent one if its family is known.
    async fn refuse_unknown(&self, tx: &mut Tx, token: &RefreshToken) -> Result<Refreshed, Error> {
        let family = token.family_hash().ok_or(Error::InvalidToken)?;
        let found = query("SELECT id FROM sessions WHERE family = $1").bind(family);
        let row = found.fetch_optional(&mut *tx).await?.ok_or(Error::InvalidToken)?;
        self.end_session(tx, row.get("id")?).await?;
        Ok(Refreshed::Reused)
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

/// The token that took the place of a spent one, if that was `age` ago and its answer may have been lost.
async fn successor(
    tx: &mut Tx,
    spent: &RefreshToken,
    row: &Row,
    age: Duration,
) -> Result<Option<RefreshToken>, DbError> {
    let Some(salt) = row.get::<Option<String>>("salt")?.filter(|_| age <= GRACE) else { return Ok(None) };
    let next = spent.successor(&Salt::from(salt));
    // The use of the new token shows that the response was not lost.
    let unused =
        query("SELECT hash FROM refresh_tokens WHERE hash = $1 AND spent_at IS NULL").bind(next.hash());
    Ok(unused.fetch_optional(tx).await?.map(|_| next))
}

async fn spend(
    tx: &mut Tx,
    token: &RefreshToken,
    session: Session,
    now: OffsetDateTime,
) -> Result<RefreshToken, DbError> {
    let salt = Salt::random();
    let next = token.successor(&salt);
    query("UPDATE refresh_tokens SET spent_at = $2, salt = $3 WHERE hash = $1")
        .bind(token.hash())
        .bind(now)
        .bind(salt.as_str())
        .execute(&mut *tx)
        .await?;
    insert_token(tx, session.id, &next).await?;
    query("UPDATE sessions SET expires_at = $2, family = $3 WHERE id = $1")
        .bind(session.id)
        .bind((now + REFRESH_TOKENS_LIVE).min(session.ends_at()))
        .bind(next.family_hash())
        .execute(tx)
        .await?;
    Ok(next)
}

async fn insert_token(tx: &mut Tx, session: Uuid, token: &RefreshToken) -> Result<(), DbError> {
    query("INSERT INTO refresh_tokens (hash, session_id) VALUES ($1, $2)")
        .bind(token.hash())
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
