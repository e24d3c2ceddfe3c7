//! Sends a copy of a request to a version whose answers are dropped. The request itself never waits for its copy.

use std::time::Instant;

use actix_web::body::to_bytes_limited;
use actix_web::rt::spawn;
use shared::balancer::{Picker, Strategy};
use shared::resilience::retry::Attempts;
use shared::trace::{Current, Span};
use tokio::sync::OwnedSemaphorePermit;

use super::attempts::{Plan, add_attempt_headers};
use super::body::KeptMemory;
use super::headers;
use crate::engine::{Body, Engine, Request};
use crate::routing::Route;

/// The longest response that is read to its end. After a longer one, the connection is closed.
const MAX_ANSWER: usize = 1024 * 1024;

/// Sends the copy, unless the body is too long to be kept. The copy may last longer than its request, so it holds the
/// `memory` of the body, too.
pub fn send(
    engine: &Engine,
    route: &Route,
    plan: &Plan,
    (body, memory): (&Body, Option<KeptMemory>),
    (version, permit): (&str, OwnedSemaphorePermit),
) {
    let body = match body {
        Body::None => Body::None,
        Body::Kept(bytes) => Body::Kept(bytes.clone()),
        Body::Streaming(..) | Body::Gone => return,
    };
    if !route.pool.has_version(version) {
        return;
    }
    let others = route.pool.keys_not_matching(|instance| instance.version() == Some(version));
    let mut head = plan.head.clone();
    headers::line(&mut head, headers::MIRRORED, b"1");
    let left = plan.end.saturating_duration_since(Instant::now());
    add_attempt_headers(&mut head, left, &Attempts::default(), &Span::unrecorded(Current::span()));
    let request = Request {
        head,
        body,
        is_upgrade: false,
        is_head: plan.is_head,
        awaits_continue: false,
        head_timeout: plan.head_timeout,
        client: None,
        upload_end: plan.upload_end,
        end: plan.end,
    };
    let (engine, pool) = (engine.clone(), route.pool.clone());
    spawn(async move {
        let (_permit, _memory) = (permit, memory);
        let mut request = request;
        let picker = Picker::new(Strategy::Random);
        let Ok(picked) = pool.pick_without_probe(&picker, None, &others, Instant::now()) else { return };
        let answered = engine.exchange(picked.instance().authority(), picked.peer_tls(), &mut request).await;
        match answered {
            // An event stream does not end by itself.
            Ok(answer) if answer.is_event_stream => {}
            // Read, so that the connection can be used again.
            Ok(answer) => drop(to_bytes_limited(answer.body, MAX_ANSWER).await),
            Err(error) => log::debug!(instance = picked.instance().id, error:%; "a copy was not answered"),
        }
    });
}
