//! Keeps this replica registered.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::{Instance, Registry};
use crate::resilience::Backoff;
use crate::stop::Stop;

/// A registration that is renewed until it is stopped.
#[derive(Clone)]
pub struct Heartbeat {
    registry: Rc<dyn Registry>,
    service: String,
    instance: Instance,
    registered: Arc<AtomicBool>,
    /// One request at a time: a renewal under way must not overtake the farewell.
    turn: Rc<Mutex<()>>,
}

/// Between tries to register: quick at first, because a stack starts all at once.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

impl Heartbeat {
    /// A heartbeat of `instance`, not started yet.
    pub fn new(registry: Rc<dyn Registry>, service: &str, instance: Instance) -> Self {
        let (service, registered, turn) = (service.to_owned(), Arc::default(), Rc::default());
        Self { registry, service, instance, registered, turn }
    }

    /// Whether the registry knew this replica when it was last asked.
    pub fn registered(&self) -> Arc<AtomicBool> {
        self.registered.clone()
    }

    /// Registers and renews until told to stop.
    pub async fn run(self, stop: Stop) {
        let mut failures = 0;
        loop {
            let turn = self.turn.lock().await;
            if stop.is_requested() {
                break;
            }
            let renewed = self.registry.register(&self.service, &self.instance).await;
            drop(turn);
            self.registered.store(renewed.is_ok(), Ordering::Relaxed);
            let pause = match renewed {
                Ok(lease) => {
                    failures = 0;
                    lease / 3
                }
                Err(error) => {
                    failures += 1;
                    if failures % 10 == 5 {
                        log::warn!(error:%, failures; "this replica cannot register");
                    }
                    RETRY.delay(failures)
                }
            };
            stop.sleep(pause).await;
        }
    }

    /// Takes this replica out of the registry; only after [`Heartbeat::run`] was told to stop.
    pub async fn leave(self) {
        let _turn = self.turn.lock().await;
        if let Err(error) = self.registry.deregister(&self.service, &self.instance.id).await {
            log::warn!(error:%; "this replica cannot deregister; its lease will end");
        }
    }
}
