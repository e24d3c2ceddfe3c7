//! What the database promises about users and their sessions.
//!
//! - An address belongs to one user, also after the user is deactivated.
//! - A refresh token is good once. One that comes a second time ends its session, unless the answer to the first
//!   may have been lost.
//! - A session ends with its user, and with a new password unless the password was set in it.
//! - A login counts only if the user and the password are still the same when its session begins.

mod audit; // what admins did
mod login_attempts; // who may try a password
mod rows; // rows into users
mod sessions; // sessions and their refresh tokens
mod users; // registered, listed, changed, deactivated

pub use audit::AuditEntry;
pub use login_attempts::{Login, LoginAttempt};
pub use sessions::Refreshed;

use shared::db::{Db, DbError, Migrations, Tx, now, query};

/// Rows that are deleted when their time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruned {
    Sessions,
    /// Of living sessions.
    SpentTokens,
    LoginFailures,
    IdempotencyKeys,
}

impl Pruned {
    pub const ALL: [Self; 4] =
        [Self::Sessions, Self::SpentTokens, Self::LoginFailures, Self::IdempotencyKeys];
}

/// Clones share the database.
#[derive(Clone)]
pub struct Store {
    db: Db,
}

pub fn migrations() -> Migrations {
    Migrations {
        sqlite: sqlx::migrate!("migrations/sqlite"),
        postgres: sqlx::migrate!("migrations/postgres"),
    }
}

impl Store {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// For transactions, and for idempotency keys.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Deletes expired sessions with their tokens, spent tokens, failures that no longer count, and idempotency keys
    /// that are no longer promised.
    pub async fn prune(&self, tx: &mut Tx, what: Pruned) -> Result<(), DbError> {
        let (rows, before) = match what {
            Pruned::Sessions => ("sessions WHERE expires_at < $1", now()),
            Pruned::SpentTokens => (
                "refresh_tokens WHERE spent_at < $1 \
                 AND session_id IN (SELECT id FROM sessions WHERE family IS NOT NULL)",
                now() - sessions::GRACE,
            ),
            Pruned::LoginFailures => ("login_failures WHERE began_at < $1", now() - login_attempts::WINDOW),
            Pruned::IdempotencyKeys => ("idempotency_keys WHERE expires_at < $1", now()),
        };
        query(format!("DELETE FROM {rows}")).bind(before).execute(tx).await.map(drop)
    }
}
