//! Watches the replicas of services, and keeps their pools up to date.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::{Instance, LEASE, Registry};
use crate::balancer::{Pool, Settings};
use crate::resilience::Backoff;

const RETRY: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(5) };
/// The shortest time between two queries that pools ask for.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);

/// One pool for each watched service, updated in the background. Used on the main thread; all threads share
/// the pools.
#[derive(Clone)]
pub struct Directory {
    registry: Rc<dyn Registry>,
    settings: Settings,
    pools: Rc<RefCell<BTreeMap<String, Arc<Pool>>>>,
}

impl Directory {
    pub fn new(registry: Rc<dyn Registry>, settings: Settings) -> Self {
        Self { registry, settings, pools: Rc::default() }
    }

    /// The pool of `service`, which is watched from now on.
    pub fn watch(&self, service: &str) -> Arc<Pool> {
        if let Some(pool) = self.pools.borrow().get(service) {
            return pool.clone();
        }
        let pool = Pool::new(service, self.settings.clone());
        self.pools.borrow_mut().insert(service.to_owned(), pool.clone());
        actix_web::rt::spawn(follow(self.registry.clone(), pool.clone()));
        pool
    }
}

/// While the registry is unavailable, the pool keeps the last known replicas. [`Pool::refresh`] ends the wait for a change.
async fn follow(registry: Rc<dyn Registry>, pool: Arc<Pool>) {
    let (mut seen, mut known) = (None, Known::default());
    let mut failures = 0;
    let mut refresh = tokio::time::interval(REFRESH_INTERVAL);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refreshing = Vec::new();
    loop {
        let found = tokio::select! {
            found = registry.instances(pool.service(), seen.as_ref()) => found,
            requests = pool.refresh_requests() => {
                refreshing.extend(requests);
                refresh.tick().await;
                registry.instances(pool.service(), None).await
            }
        };
        match found {
            Ok(found) => {
                failures = 0;
                let now = Instant::now();
                if known.learn(&found.instances, now) {
                    pool.update(&found.instances, now);
                }
                pool.apply_registry_checks(&found.failing, now);
                seen = Some(found);
                refreshing.clear();
            }
            Err(error) => {
                failures += 1;
                // It may have restarted, and may count its versions from the beginning.
                seen = None;
                if failures % 10 == 5 {
                    log::warn!(error:%, peer_service = pool.service(), failures; "the registry cannot be reached");
                }
                refreshing.clear();
                tokio::select! {
                    () = tokio::time::sleep(RETRY.delay(failures)) => {}
                    requests = pool.refresh_requests() => {
                        refreshing.extend(requests);
                        refresh.tick().await;
                    }
                }
            }
        }
    }
}

/// The instances that are believed to exist.
#[derive(Debug, Default)]
struct Known {
    instances: Vec<Instance>,
    /// When the registry first reported no instance.
    empty_since: Option<Instant>,
}

impl Known {
    /// Records the result of a query; returns whether it changes the instances. An empty result is believed
    /// only after a lease: a registry that has lost its data also returns none, and within a lease all
    /// running replicas have registered again. Until then a request to a lost replica does no harm.
    fn learn(&mut self, found: &[Instance], now: Instant) -> bool {
        if found.is_empty() {
            let since = *self.empty_since.get_or_insert(now);
            if now.saturating_duration_since(since) < LEASE {
                return false;
            }
        } else {
            self.empty_since = None;
        }
        let changed = self.instances != found;
        self.instances = found.to_vec();
        changed
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::registry::{Instances, RegistryError};

    /// Fails at the second query; records the `seen` version of each query.
    #[derive(Default)]
    struct Forgetful(RefCell<Vec<Option<u64>>>);

    #[async_trait(?Send)]
    impl Registry for Forgetful {
        async fn instances(&self, _: &str, seen: Option<&Instances>) -> Result<Instances, RegistryError> {
            self.0.borrow_mut().push(seen.map(|seen| seen.version));
            let answer = match self.0.borrow().len() {
                2 => Err(RegistryError::Unavailable("it starts anew".to_owned())),
                times => Ok(Instances { version: 10 - times as u64, ..Instances::default() }),
            };
            tokio::task::yield_now().await;
            answer
        }
    }

    #[actix_web::test]
    async fn after_an_outage_the_seen_version_is_reset() {
        let registry = Rc::new(Forgetful::default());
        let _pool = Directory::new(registry.clone(), Settings::default()).watch("a");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while registry.0.borrow().len() < 4 {
            assert!(tokio::time::Instant::now() < deadline, "{:?}", registry.0.borrow());
            tokio::task::yield_now().await;
        }
        assert_eq!(registry.0.borrow()[..4], [None, Some(9), None, Some(7)]);
    }

    #[test]
    fn an_empty_answer_is_believed_after_a_lease() {
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
    fn the_removal_of_one_of_several_is_believed_immediately() {
        let now = Instant::now();
        let both = [Instance::new("1", "http://h:1"), Instance::new("2", "http://h:2")];
        let mut known = Known::default();
        assert!(known.learn(&both, now) && known.learn(&both[..1], now));
    }
}
