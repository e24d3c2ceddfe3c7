//! The database's time. Replicas compare times that others wrote (claims, leases, timers), so all of them take it
//! from what they share, and their own clocks may differ.
//!
//! The domain needs the time as a value, and a round trip for each would be wasted. So a program asks the
//! database now and then, and counts on from its answer. SQLite runs in this process, and has its clock.

#[cfg(feature = "postgres")]
use std::sync::Arc;

use time::OffsetDateTime;

#[cfg(feature = "postgres")]
use super::server_clock::ServerClock;

#[derive(Debug, Clone)]
pub(super) enum Clock {
    #[cfg(feature = "sqlite")]
    Process,
    #[cfg(feature = "postgres")]
    Server(Arc<ServerClock>),
}

impl Clock {
    pub(super) fn now(&self) -> OffsetDateTime {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Process => super::now(),
            #[cfg(feature = "postgres")]
            Self::Server(clock) => clock.now(std::time::Instant::now()),
        }
    }

    #[cfg(feature = "postgres")]
    pub(super) async fn of(pool: &sqlx::PgPool, timeout: std::time::Duration) -> Result<Self, sqlx::Error> {
        Ok(Self::Server(Arc::new(ServerClock::ask(pool, timeout).await?)))
    }

    #[cfg(feature = "postgres")]
    pub(super) async fn correct(
        &self,
        pool: &sqlx::PgPool,
        timeout: std::time::Duration,
    ) -> Result<(), sqlx::Error> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Process => Ok(()),
            Self::Server(clock) => clock.ask_again(pool, timeout).await,
        }
    }
}
