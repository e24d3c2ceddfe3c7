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

/// Permission to run; dropping it admits the next request.
#[derive(Debug)]
pub struct Permit {
    _place: OwnedSemaphorePermit,
}

/// The limit is reached, and the queue is full or too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are running")]
pub struct Busy;

impl Limiter {
    /// Allows `running` concurrent requests, and `queue` more that wait for at most `timeout`.
    pub fn new(running: usize, queue: usize, timeout: Duration) -> Self {
        Self { running: Arc::new(Semaphore::new(running)), waiting: Arc::default(), queue, timeout }
    }

    pub async fn enter(&self) -> Result<Permit, Busy> {
        if let Ok(permit) = self.running.clone().try_acquire_owned() {
            return Ok(Permit { _place: permit });
        }
        let _place = Place::take(&self.waiting, self.queue)?;
        match tokio::time::timeout(self.timeout, self.running.clone().acquire_owned()).await {
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
    async fn a_waiting_request_gets_the_next_permit() {
        let limiter = Limiter::new(1, 1, Duration::from_millis(100));
        let running = limiter.enter().await.unwrap();
        let (entered, ()) = tokio::join!(limiter.enter(), async { drop(running) });
        assert!(entered.is_ok());
    }
}
