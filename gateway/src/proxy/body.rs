//! The body of a request: kept in memory for a retry, or streamed.

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt as _;
use shared::problem::Problem;
use shared::resilience::retry::REPLAY_LIMIT;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::engine::Body;

/// Buffers a small body for a retry, if there is memory for it. Streams all other bodies.
pub async fn receive<'a>(
    request: &HttpRequest,
    mut payload: Payload,
    kept_bodies: &'a Semaphore,
) -> Result<(Body, Option<SemaphorePermit<'a>>), Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let small =
        length.and_then(|length| u32::try_from(length).ok()).filter(|length| *length <= REPLAY_LIMIT as u32);
    let permit = small.and_then(|length| kept_bodies.try_acquire_many(length).ok());
    match length {
        None if !chunked => Ok((Body::None, None)),
        Some(length) if permit.is_some() => {
            let mut kept = BytesMut::new();
            while let Some(part) = payload.next().await {
                kept.extend_from_slice(&part.map_err(|_| broken_body())?);
                if kept.len() as u64 > length {
                    return Err(broken_body());
                }
            }
            if kept.len() as u64 != length {
                return Err(broken_body());
            }
            Ok((Body::Kept(Bytes::from(kept)), permit))
        }
        length => Ok((Body::Streaming(payload, length), None)),
    }
}

/// The client's body is incomplete.
pub fn broken_body() -> Problem {
    Problem::malformed("The body did not arrive whole.")
}
