//! What every registry that can be written to must do; run against the real one.

use std::time::Duration;

use super::{Instance, Registry};

/// Registers, renews, finds and deregisters instances of a service of its own.
///
/// # Panics
/// When a promise is broken.
pub async fn keeps_its_promises(registry: &dyn Registry) {
    let service = format!("conformance-{}", uuid::Uuid::now_v7().simple());
    let one = Instance::new("one", "http://127.0.0.1:4001").with("started_at", "1");
    let two = Instance::new("two", "http://127.0.0.1:4002").with("started_at", "1");

    let nobody = registry.instances(&service, None).await.expect("an unknown service has no instances");
    assert!(nobody.instances.is_empty());

    let lease = registry.register(&service, &one).await.expect("registers");
    assert!(lease > Duration::ZERO);
    registry.register(&service, &two).await.expect("registers");
    registry.register(&service, &two).await.expect("renews");
    assert_eq!(found(registry, &service, 2).await, [one.clone(), two.clone()]);

    let again = two.clone().with("started_at", "2");
    registry.register(&service, &again).await.expect("registers after a restart");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while found(registry, &service, 2).await != [one.clone(), again.clone()] {
        assert!(tokio::time::Instant::now() < deadline, "the restarted instance is not seen");
    }

    registry.deregister(&service, "one").await.expect("deregisters");
    assert_eq!(found(registry, &service, 1).await, [again]);
    registry.deregister(&service, "one").await.expect("deregisters who is not there");
    registry.deregister(&service, "two").await.expect("deregisters");
}

const PATIENCE: Duration = Duration::from_secs(10);

/// The instances, when there are `count`.
async fn found(registry: &dyn Registry, service: &str, count: usize) -> Vec<Instance> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut seen = registry.instances(service, None).await.expect("answers");
    while seen.instances.len() != count {
        assert!(tokio::time::Instant::now() < deadline, "{count} instances are not seen: {seen:?}");
        seen = registry.instances(service, Some(&seen)).await.expect("answers");
    }
    seen.instances
}
