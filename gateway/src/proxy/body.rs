//! The body of a request: kept in memory for a retry, or streamed.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt as _;
use shared::problem::Problem;
use shared::resilience::retry::REPLAY_LIMIT;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::Body;

/// The memory of a buffered body. It is free again when the request and its copies are done.
pub type KeptMemory = Arc<OwnedSemaphorePermit>;

/// Buffers a small body for a retry, if there is memory for it. Streams all other bodies.
pub async fn receive(
    request: &HttpRequest,
    mut payload: Payload,
    kept_bodies: &Arc<Semaphore>,
) -> Result<(Body, Option<KeptMemory>), Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let small =
        length.and_then(|length| u32::try_from(length).ok()).filter(|length| *length <= REPLAY_LIMIT as u32);
    let memory =
        small.and_then(|length| Some((length, kept_bodies.clone().try_acquire_many_owned(length).ok()?)));
    let Some((length, permit)) = memory else { return Ok((Body::Streaming(payload, length), None)) };
    let length = length as usize;
    // A buffer that grows would take up to twice the memory of the permit.
    let mut kept = BytesMut::with_capacity(length);
    while let Some(part) = payload.next().await {
        let part = part.map_err(|_| broken_body())?;
        if part.len() > length - kept.len() {
            return Err(broken_body());
        }
        kept.extend_from_slice(&part);
    }
    if kept.len() != length {
        return Err(broken_body());
    }
    Ok((Body::Kept(Bytes::from(kept)), Some(Arc::new(permit))))
}

/// The client's body is incomplete.
pub fn broken_body() -> Problem {
    Problem::malformed("The body did not arrive whole.")
}
