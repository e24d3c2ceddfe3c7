//! The store of users and sessions. It guarantees:
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

use shared::db::{Db, Loader, Migrations, Retention};
use time::Duration;

use self::rows::COLUMNS;

/// A session goes with its refresh tokens, and a spent token when its answer cannot be lost any more.
pub const RETENTION: [Retention; 4] = [
    Retention { table: "sessions", key: "id", time: "expires_at", kept: Duration::ZERO },
    Retention { table: "refresh_tokens", key: "hash", time: "spent_at", kept: sessions::GRACE },
    Retention {
        table: "login_failures",
        key: "address, client",
        time: "began_at",
        kept: login_attempts::WINDOW,
    },
    Retention {
        table: "known_clients",
        key: "address, client",
        time: "seen_at",
        kept: login_attempts::KNOWN,
    },
];

/// Clones share the database.
#[derive(Clone)]
pub struct Store {
    db: Db,
    users_by_id: Loader,
}

pub fn migrations() -> Migrations {
    Migrations {
        sqlite: sqlx::migrate!("migrations/sqlite"),
        postgres: sqlx::migrate!("migrations/postgres"),
    }
}

impl Store {
    pub fn new(db: Db) -> Self {
        let users_by_id = format!("SELECT {COLUMNS} FROM users WHERE id = ANY($1)");
        Self { users_by_id: Loader::new(db.clone(), users_by_id), db }
    }

    /// The database, for transactions and idempotency keys.
    pub fn db(&self) -> &Db {
        &self.db
    }
}
