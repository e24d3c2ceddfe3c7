//! What every registry must do; run against the real one. Its instances are real, because a registry
//! may ask whether they are ready.

use std::time::Duration;

use super::{Instance, Registry};
use crate::service::{HttpConfig, ServerHandle, Service};

/// Registers, renews, finds and deregisters instances of a service of its own.
///
/// # Panics
/// When a promise is broken.
pub async fn keeps_its_promises(registry: &dyn Registry) {
    let service = format!("conformance-{}", uuid::Uuid::now_v7().simple());
    let (one, first) = replica("one").await;
    let (two, second) = replica("two").await;

    let nobody = registry.instances(&service, None).await.expect("an unknown service has no instances");
    assert!(nobody.instances.is_empty());

    let lease = registry.register(&service, &one).await.expect("registers");
    assert!(lease > Duration::ZERO);
    registry.register(&service, &two).await.expect("registers");
    registry.register(&service, &two).await.expect("renews");
    assert_eq!(found(registry, &service, 2).await, [one.clone(), two.clone()]);

    let again = two.clone().with("started_at", "2");
    registry.register(&service, &again).await.expect("registers after a restart");
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while found(registry, &service, 2).await != [one.clone(), again.clone()] {
        assert!(tokio::time::Instant::now() < deadline, "the restarted instance is not seen");
    }

    registry.deregister(&service, "one").await.expect("deregisters");
    assert_eq!(found(registry, &service, 1).await, [again]);
    registry.deregister(&service, "one").await.expect("deregisters who is not there");
    registry.deregister(&service, "two").await.expect("deregisters");
    first.stop().await;
    second.stop().await;
}

/// For a registry that only reads: finds `listed`, whatever anybody registers.
///
/// # Panics
/// When a promise is broken.
pub async fn finds_who_is_listed(registry: &dyn Registry, service: &str, listed: &[Instance]) {
    let nobody = registry.instances("unknown", None).await.expect("an unknown service has no instances");
    assert!(nobody.instances.is_empty());

    let other = Instance::new("other", "http://127.0.0.1:1");
    assert!(registry.register(service, &other).await.expect("does not mind") > Duration::ZERO);
    assert_eq!(registry.instances(service, None).await.expect("answers").instances, listed);
    registry.deregister(service, &listed[0].id).await.expect("does not mind");
    let seen = registry.instances(service, None).await.expect("answers");
    assert_eq!(seen.instances, listed);

    let at_once = Duration::from_millis(100);
    let changed = tokio::time::timeout(at_once, registry.instances(service, Some(&seen))).await;
    assert!(changed.is_err(), "it does not wait for a change");
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// A running replica that is ready.
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

/// The instances, when there are `count`.
pub(super) async fn found(registry: &dyn Registry, service: &str, count: usize) -> Vec<Instance> {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    let mut seen = registry.instances(service, None).await.expect("answers");
    while seen.instances.len() != count {
        assert!(tokio::time::Instant::now() < deadline, "{count} instances are not seen: {seen:?}");
        seen = registry.instances(service, Some(&seen)).await.expect("answers");
    }
    seen.instances
}
