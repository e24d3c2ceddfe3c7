//! The in-memory registry: a registration is a lease, and expires if it is not renewed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Instance;

/// Duration of a lease: three heartbeats.
pub const LEASE: Duration = Duration::from_secs(15);

/// All registered instances by service and id, with the end of each lease.
#[derive(Debug, Default)]
pub struct Leases {
    services: BTreeMap<String, BTreeMap<String, (Instance, Instant)>>,
}

impl Leases {
    /// Registers or renews; returns whether the instance is new or changed.
    pub fn register(&mut self, service: &str, instance: Instance, now: Instant) -> bool {
        let instances = self.services.entry(service.to_owned()).or_default();
        let earlier = instances.insert(instance.id.clone(), (instance.clone(), now + LEASE));
        earlier.is_none_or(|(earlier, _)| earlier != instance)
    }

    /// Removes an instance; returns whether it was registered.
    pub fn deregister(&mut self, service: &str, id: &str) -> bool {
        self.services.get_mut(service).is_some_and(|instances| instances.remove(id).is_some())
    }

    /// Removes instances with expired leases; returns whether there was any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let mut expired = false;
        for instances in self.services.values_mut() {
            let before = instances.len();
            instances.retain(|_, (_, end)| now < *end);
            expired |= instances.len() < before;
        }
        expired
    }

    /// Sorted by id.
    pub fn instances(&self, service: &str) -> Vec<Instance> {
        let instances = self.services.get(service).into_iter().flatten();
        instances.map(|(_, (instance, _))| instance.clone()).collect()
    }

    /// All services that ever had an instance.
    pub fn services(&self) -> Vec<String> {
        self.services.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_is_renewed_holds_and_one_that_is_not_ends() {
        let now = Instant::now();
        let mut leases = Leases::default();
        assert!(leases.register("a", Instance::new("1", "http://h:1"), now));
        leases.register("a", Instance::new("2", "http://h:2"), now);
        let later = now + LEASE / 3;
        assert!(!leases.register("a", Instance::new("1", "http://h:1"), later), "only renewed");
        assert!(leases.expire(now + LEASE));
        assert_eq!(leases.instances("a"), [Instance::new("1", "http://h:1")]);
        assert!(leases.expire(later + LEASE));
        assert!(leases.instances("a").is_empty());
    }

    #[test]
    fn a_restart_is_a_change() {
        let now = Instant::now();
        let mut leases = Leases::default();
        let started = |at: &str| Instance::new("1", "http://h:1").with("started_at", at);
        leases.register("a", started("1"), now);
        assert!(leases.register("a", started("2"), now));
        assert!(leases.deregister("a", "1") && !leases.deregister("a", "1"));
    }
}
