//! Follows the replicas of services.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Instance, LEASE, Registry};
use crate::balancer::{Pool, Settings};
use crate::resilience::Backoff;

const RETRY: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(5) };

/// A pool for each service that somebody asked for, kept up to date in the background. Used on the
/// main thread; the pools go to all.
#[derive(Clone)]
pub struct Directory {
    registry: Rc<dyn Registry>,
    settings: Settings,
    pools: Rc<RefCell<BTreeMap<String, Arc<Pool>>>>,
}

impl Directory {
    /// A directory that follows nothing yet.
    pub fn new(registry: Rc<dyn Registry>, settings: Settings) -> Self {
        Self { registry, settings, pools: Rc::default() }
    }

    /// The pool of `service`, followed from now on.
    pub fn watch(&self, service: &str) -> Arc<Pool> {
        if let Some(pool) = self.pools.borrow().get(service) {
            return pool.clone();
        }
        let pool = Pool::new(service, self.settings);
        self.pools.borrow_mut().insert(service.to_owned(), pool.clone());
        actix_web::rt::spawn(follow(self.registry.clone(), pool.clone()));
        pool
    }
}

/// While the registry is away, the pool keeps the last known replicas.
async fn follow(registry: Rc<dyn Registry>, pool: Arc<Pool>) {
    let (mut seen, mut known) = (None, Known::default());
    let mut failures = 0;
    loop {
        match registry.instances(pool.service(), seen.as_ref()).await {
            Ok(found) => {
                failures = 0;
                let now = Instant::now();
                if known.learn(&found.instances, now) {
                    pool.update(&found.instances, now);
                }
                seen = Some(found);
            }
            Err(error) => {
                failures += 1;
                if failures % 10 == 5 {
                    log::warn!(error:%, service = pool.service(), failures; "the replicas cannot be looked up");
                }
                tokio::time::sleep(RETRY.delay(failures)).await;
            }
        }
    }
}

/// What is believed of what the registry says.
#[derive(Debug, Default)]
struct Known {
    instances: Vec<Instance>,
    /// Since when the registry says that there is nobody.
    nobody_since: Option<Instant>,
}

impl Known {
    /// Takes in what the registry says; tells whether it is to be believed, and news. That all have
    /// gone is believed after a lease: a registry that lost its memory says the same, and who is alive
    /// has registered again by then. Asking somebody who is gone does no harm.
    fn learn(&mut self, found: &[Instance], now: Instant) -> bool {
        if found.is_empty() {
            let since = *self.nobody_since.get_or_insert(now);
            if now.saturating_duration_since(since) < LEASE {
                return false;
            }
        } else {
            self.nobody_since = None;
        }
        let news = self.instances != found;
        self.instances = found.to_vec();
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_all_have_gone_is_believed_after_a_lease() {
        let now = Instant::now();
        let some = [Instance::new("1", "http://h:1")];
        let mut known = Known::default();
        assert!(!known.learn(&[], now), "no news");
        assert!(known.learn(&some, now));
        assert!(!known.learn(&some, now), "no news");
        assert!(!known.learn(&[], now + LEASE));
        assert!(!known.learn(&some, now + LEASE), "back, and never gone");
        assert!(!known.learn(&[], now + 2 * LEASE));
        assert!(known.learn(&[], now + 3 * LEASE));
    }

    #[test]
    fn that_one_of_several_has_gone_is_believed_at_once() {
        let now = Instant::now();
        let both = [Instance::new("1", "http://h:1"), Instance::new("2", "http://h:2")];
        let mut known = Known::default();
        assert!(known.learn(&both, now) && known.learn(&both[..1], now));
    }
}
