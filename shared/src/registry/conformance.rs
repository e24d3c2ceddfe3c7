//! Conformance tests for every registry, run against real ones. The instances are running servers, because a
//! registry may check their health.

use std::time::Duration;

use super::{Instance, Registry};
use crate::service::{HttpConfig, ServerHandle, Service};

/// Registers, renews, finds and deregisters instances of `service`, which has none.
///
/// # Panics
/// When a promise is broken.
pub async fn keeps_its_promises(registry: &dyn Registry, service: &str) {
    let (one, first) = replica("one").await;
    let (two, second) = replica("two").await;

    let none = registry.instances(service, None).await.expect("an unknown service has no instances");
    assert!(none.instances.is_empty());

    let lease = registry.register(service, &one).await.expect("registers");
    assert!(lease > Duration::ZERO);
    registry.register(service, &two).await.expect("registers");
    registry.register(service, &two).await.expect("renews");
    assert_eq!(found(registry, service, 2).await, [one.clone(), two.clone()]);

    let again = two.clone().with("started_at", "2");
    registry.register(service, &again).await.expect("registers after a restart");
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while found(registry, service, 2).await != [one.clone(), again.clone()] {
        assert!(tokio::time::Instant::now() < deadline, "the restarted instance is not seen");
    }

    registry.deregister(service, "one").await.expect("deregisters");
    assert_eq!(found(registry, service, 1).await, [again]);
    registry.deregister(service, "one").await.expect("deregisters an unknown instance");
    registry.deregister(service, "two").await.expect("deregisters");
    first.stop().await;
    second.stop().await;
}

/// Checks a registry without registration: it finds `listed`, and ignores registrations.
///
/// # Panics
/// When a promise is broken.
pub async fn finds_listed_instances(registry: &dyn Registry, service: &str, listed: &[Instance]) {
    let none = registry.instances("unknown", None).await.expect("an unknown service has no instances");
    assert!(none.instances.is_empty());

    let other = Instance::new("other", "http://127.0.0.1:1");
    assert!(registry.register(service, &other).await.expect("ignores it") > Duration::ZERO);
    assert_eq!(registry.instances(service, None).await.expect("answers").instances, listed);
    registry.deregister(service, &listed[0].id).await.expect("ignores it");
    let seen = registry.instances(service, None).await.expect("answers");
    assert_eq!(seen.instances, listed);

    let short = Duration::from_millis(100);
    let changed = tokio::time::timeout(short, registry.instances(service, Some(&seen))).await;
    assert!(changed.is_err(), "it does not wait for a change");
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// A running, ready replica.
pub(super) async fn replica(id: &'static str) -> (Instance, ServerHandle) {
    let server = Service::bind("conformance", HttpConfig::for_tests())
        .expect("a free port")
        .build()
        .expect("a free port");
    let instance = Instance::new(id, &format!("http://{}", server.address())).with("started_at", "1");
    let handle = server.handle();
    actix_web::rt::spawn(server.run());
    (instance, handle)
}

/// Waits until there are `count` instances.
pub(super) async fn found(registry: &dyn Registry, service: &str, count: usize) -> Vec<Instance> {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    let mut seen = registry.instances(service, None).await.expect("answers");
    while seen.instances.len() != count {
        assert!(tokio::time::Instant::now() < deadline, "{count} instances are not seen: {seen:?}");
        seen = registry.instances(service, Some(&seen)).await.expect("answers");
    }
    seen.instances
}
