//! Draining: how a program ends without failing a request.
//!
//! 1. Readiness turns 503 and the replica leaves the registry.
//! 2. For the grace time it goes on accepting, answering with `Connection: close`, so that whoever
//!    has not noticed yet is still served and then goes elsewhere.
//! 3. It stops accepting, and finishes what runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::stop::Stop;

/// Whether this program drains, and how many requests run.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    begun: Stop,
    in_flight: Arc<AtomicUsize>,
}

/// One running request, from its head to the end of its answer's body.
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

    /// Steps 2 and 3.
    pub(super) async fn finish(&self, server: &ServerHandle, grace: Duration, limit: Duration) {
        tokio::time::sleep(grace).await;
        server.pause().await;
        let end = Instant::now() + limit;
        while self.in_flight.load(Ordering::Relaxed) > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = self.in_flight.load(Ordering::Relaxed);
        if left > 0 {
            log::warn!(requests = left; "the drain limit is over, what still runs is cut off");
        }
        server.stop(false).await;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for SIGTERM, SIGINT or a handle's call.
pub(super) async fn requested(stop: &Stop, signals: bool) {
    tokio::select! {
        () = signalled(SignalKind::terminate()), if signals => {}
        () = signalled(SignalKind::interrupt()), if signals => {}
        () = stop.requested() => {}
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
