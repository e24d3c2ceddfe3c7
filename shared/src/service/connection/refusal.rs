//! The response to a request that actix never sees. The connection closes after it, because it is unknown
//! where the next request begins.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::web::{Buf as _, Bytes};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use uuid::Uuid;

use crate::alarm::Alarm;
use crate::problem::{PROBLEM_JSON, Problem};

/// How long, and how much, is read after the response. Without this, the kernel resets a connection with unread
/// bytes, and the client may lose the response.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;

pub(super) struct Refusal {
    unsent: Bytes,
    is_shut: bool,
    discarded: usize,
    until: Instant,
    alarm: Alarm,
}

impl Refusal {
    /// Logs and counts the request, too.
    pub(super) fn new(problem: &Problem, service: &str) -> Self {
        let id = Uuid::now_v7().to_string();
        let status = problem.status();
        crate::metrics::request("-", "-", status.as_u16(), Duration::ZERO);
        log::info!(target: "request", status = status.as_u16(), request_id = id; "{}", problem.code());
        let body = problem.document(service, &id, OffsetDateTime::now_utc());
        let head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\nx-request-id: {id}\r\n\
             connection: close\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len()
        );
        Self {
            unsent: Bytes::from([head.into_bytes(), body].concat()),
            is_shut: false,
            discarded: 0,
            until: Instant::now() + LINGER,
            alarm: Alarm::default(),
        }
    }

    /// Ready when the connection can be closed.
    pub(super) fn poll(
        &mut self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        match self.poll_io(io, cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => self.alarm.poll(cx, self.until),
        }
    }

    fn poll_io(
        &mut self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.unsent))?;
            self.unsent.advance(written);
        }
        if !self.is_shut {
            ready!(Pin::new(&mut *io).poll_shutdown(cx))?;
            self.is_shut = true;
        }
        let mut unread = [0; 4096];
        while self.discarded < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut unread);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer))?;
            match buffer.filled().len() {
                0 => break,
                read => self.discarded += read,
            }
        }
        Poll::Ready(Ok(()))
    }
}
