//! Concurrency limit with a short queue: refuses a request early instead of letting it wait long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits concurrent and queued requests; clones share the limits.
#[derive(Debug, Clone)]
pub struct Limiter {
    running: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    queue: usize,
    timeout: Duration,
}

/// The permission to run. When it is dropped, the next request is admitted.
#[derive(Debug)]
pub struct Permit {
    _place: OwnedSemaphorePermit,
}

/// The limit is reached, and the queue is full or the wait in it was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are running")]
pub struct Busy;

impl Limiter {
    /// Allows `running` concurrent requests, and `queue` more that wait for at most `timeout`.
    pub fn new(running: usize, queue: usize, timeout: Duration) -> Self {
        Self { running: Arc::new(Semaphore::new(running)), waiting: Arc::default(), queue, timeout }
    }

    /// Succeeds immediately if more than `reserve` permits are free. Otherwise it fails immediately, unless `reserve`
    /// is 0: then the request waits in the queue. A higher priority has a smaller reserve. Requests that enter at the
    /// same moment may see the same free permits, so a reserve is approximate.
    pub async fn enter_above(&self, reserve: usize) -> Result<Permit, Busy> {
        if reserve == 0 {
            return self.enter().await;
        }
        if self.running.available_permits() <= reserve {
            return Err(Busy);
        }
        // Another request may have taken the last place since.
        let place = self.running.clone().try_acquire_owned().map_err(|_| Busy)?;
        Ok(Permit { _place: place })
    }

    pub async fn enter(&self) -> Result<Permit, Busy> {
        if let Ok(permit) = self.running.clone().try_acquire_owned() {
            return Ok(Permit { _place: permit });
        }
        let _place = Place::take(&self.waiting, self.queue)?;
        match Box::pin(tokio::time::timeout(self.timeout, self.running.clone().acquire_owned())).await {
            Ok(Ok(permit)) => Ok(Permit { _place: permit }),
            _ => Err(Busy),
        }
    }
}

struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, queue: usize) -> Result<Self, Busy> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) < queue { Ok(place) } else { Err(Busy) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_or_a_long_wait_is_refused() {
        let limiter = Limiter::new(1, 1, Duration::from_millis(100));
        let running = limiter.enter().await.unwrap();
        let waiting = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.enter().await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert_eq!(limiter.enter().await.err(), Some(Busy), "the queue is full");
        assert_eq!(waiting.await.unwrap(), Err(Busy), "100 ms are over");
        drop(running);
        assert!(limiter.enter().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_places_are_for_requests_without_a_reserve() {
        let limiter = Limiter::new(2, 0, Duration::from_millis(100));
        let first = limiter.enter_above(1).await.unwrap();
        assert_eq!(limiter.enter_above(1).await.err(), Some(Busy));
        assert!(limiter.enter_above(0).await.is_ok());
        drop(first);
        assert!(limiter.enter_above(1).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_request_gets_the_next_permit() {
        let limiter = Limiter::new(1, 1, Duration::from_millis(100));
        let running = limiter.enter().await.unwrap();
        let (entered, ()) = tokio::join!(limiter.enter(), async { drop(running) });
        assert!(entered.is_ok());
    }
}
