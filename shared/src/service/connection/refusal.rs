//! The response to a request that actix never sees. The connection closes after it, because it is unknown
//! where the next request begins.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::web::{Buf as _, Bytes};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use uuid::Uuid;

use super::linger::Linger;
use crate::alarm::Alarm;
use crate::problem::{PROBLEM_JSON, Problem};

/// How long the client may take to read the response.
const TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Refusal {
    unsent: Bytes,
    until: Instant,
    alarm: Alarm,
    linger: Linger,
}

/// The id of the request, and the response's body. Logs and counts the request of `peer`, too.
pub(super) fn document(problem: &Problem, service: &str, peer: IpAddr) -> (String, Vec<u8>) {
    let (id, status) = (Uuid::now_v7().to_string(), problem.status().as_u16());
    crate::metrics::request("-", "-", status, Duration::ZERO);
    let client = peer.to_canonical().to_string();
    log::info!(target: "request", status, request_id = id, client; "{}", problem.code());
    let body = problem.document(service, &id, OffsetDateTime::now_utc());
    (id, body)
}

impl Refusal {
    /// The response to HEAD has no body (RFC 9110 §9.3.2).
    pub(super) fn new(problem: &Problem, service: &str, peer: IpAddr, is_head: bool) -> Self {
        let (id, mut body) = document(problem, service, peer);
        let status = problem.status();
        let head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\nx-request-id: {id}\r\n\
             connection: close\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len()
        );
        if is_head {
            body.clear();
        }
        Self {
            unsent: Bytes::from([head.into_bytes(), body].concat()),
            until: Instant::now() + TIMEOUT,
            alarm: Alarm::default(),
            linger: Linger::default(),
        }
    }

    /// Ready when the connection can be closed.
    pub(super) fn poll(
        &mut self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        while !self.unsent.is_empty() {
            match Pin::new(&mut *io).poll_write(cx, &self.unsent) {
                Poll::Ready(Ok(written)) => self.unsent.advance(written),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return self.alarm.poll(cx, self.until),
            }
        }
        self.linger.poll(io, cx)
    }
}
