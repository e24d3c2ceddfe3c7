//! Graceful shutdown: a program drains without failing a request.
//!
//! 1. `/health/ready` answers 503, and the replica deregisters.
//! 2. During the grace time it still accepts connections, for clients that have not noticed yet, and
//!    answers with `Connection: close`, so that they connect to another replica next time.
//! 3. It accepts the connections that wait in the kernel's queue, closes its listener, closes idle connections,
//!    and finishes the running requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::stop::Stop;

/// Whether the drain has begun, and how many requests are running.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    begun: Stop,
    in_flight: Arc<AtomicUsize>,
}

/// Counts one running request, from its head to the end of its response body.
#[derive(Debug)]
pub(super) struct InFlight(Arc<AtomicUsize>);

impl Drain {
    pub(super) fn new(begun: Stop) -> Self {
        Self { begun, in_flight: Arc::default() }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_requested()
    }

    pub(super) fn enter(&self) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.in_flight.clone())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for SIGTERM, SIGINT or [`ServerHandle::stop`](super::ServerHandle::stop).
pub(super) async fn requested(stop: &Stop, signals: bool) {
    tokio::select! {
        () = ended_by_signal(), if signals => {}
        () = stop.requested() => {}
    }
}

/// Waits for SIGTERM or SIGINT.
pub async fn ended_by_signal() {
    tokio::select! {
        () = signalled(SignalKind::terminate()) => {}
        () = signalled(SignalKind::interrupt()) => {}
    }
}

async fn signalled(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            log::error!(error:%; "signals cannot be received");
            std::future::pending().await
        }
    }
}
