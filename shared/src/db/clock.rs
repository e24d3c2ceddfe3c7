//! The database's time. Replicas compare times that others wrote (claims, leases, timers), so all of them take it
//! from what they share, and their own clocks may differ.
//!
//! The domain needs the time as a value, and a round trip for each would be wasted. So a program asks the
//! database now and then, and counts on from its answer. SQLite runs in this process, and has its clock.

#[cfg(feature = "postgres")]
use std::sync::Arc;

use time::OffsetDateTime;

#[cfg(feature = "postgres")]
use super::connections::Connections;
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
    pub(super) async fn of(connections: &Connections) -> Result<Self, sqlx::Error> {
        Ok(Self::Server(Arc::new(ServerClock::ask(connections).await?)))
    }

    #[cfg(feature = "postgres")]
    pub(super) async fn correct(&self, connections: &Connections) -> Result<(), sqlx::Error> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Process => Ok(()),
            Self::Server(clock) => clock.ask_again(connections).await,
        }
    }
}

/// `skew` is in seconds.
#[cfg(feature = "postgres")]
pub(super) fn tolerable(skew: f64, max: std::time::Duration) -> Result<(), String> {
    match skew.abs() <= max.as_secs_f64() {
        true => Ok(()),
        false => Err(format!("this clock is {skew:.1} s ahead of the database's")),
    }
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn a_clock_five_seconds_off_either_way_is_not_tolerable() {
        let tolerable = |skew| tolerable(skew, std::time::Duration::from_secs(5));
        assert_eq!((tolerable(4.9), tolerable(-4.9)), (Ok(()), Ok(())));
        assert!(tolerable(5.1).is_err() && tolerable(-5.1).is_err());
    }
}
