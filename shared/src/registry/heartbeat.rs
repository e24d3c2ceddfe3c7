//! Registers this replica and renews its registration.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::{Instance, Registry};
use crate::resilience::Backoff;
use crate::stop::Stop;

/// The registration of one replica.
#[derive(Clone)]
pub struct Heartbeat {
    registry: Rc<dyn Registry>,
    service: String,
    instance: Instance,
    /// One request at a time: a renewal in flight must not overtake the deregistration.
    request_lock: Rc<Mutex<()>>,
}

/// Quick at first, because all services start at the same time.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

impl Heartbeat {
    pub fn new(registry: Rc<dyn Registry>, service: &str, instance: Instance) -> Self {
        Self { registry, service: service.to_owned(), instance, request_lock: Rc::default() }
    }

    /// Registers, and renews at a third of the lease, until `stop`.
    pub async fn run(self, stop: Stop) {
        let mut failures = 0;
        loop {
            let lock = self.request_lock.lock().await;
            if stop.is_requested() {
                break;
            }
            let renewed = self.registry.register(&self.service, &self.instance).await;
            drop(lock);
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

    /// Deregisters this replica. [`Heartbeat::run`] must have been stopped before, or it registers again.
    pub async fn leave(self) {
        let _lock = self.request_lock.lock().await;
        if let Err(error) = self.registry.deregister(&self.service, &self.instance.id).await {
            log::warn!(error:%; "this replica cannot deregister; its lease will expire");
        }
    }
}
