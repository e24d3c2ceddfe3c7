//! Closes a connection without losing the response: the kernel resets a connection that is closed with unread bytes, and
//! a client whose connection is reset may lose what it has not read.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::READ_SIZE;
use crate::alarm::Alarm;

/// How long is read after the response.
const TIME: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Linger {
    is_shut: bool,
    until: Option<Instant>,
    alarm: Alarm,
}

impl Linger {
    /// Says that nothing more is sent, and reads what the client still sends. Ready when the connection can be closed.
    pub(super) fn poll(
        &mut self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let until = *self.until.get_or_insert_with(|| Instant::now() + TIME);
        match self.poll_io(io, cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => self.alarm.poll(cx, until),
        }
    }

    fn poll_io(
        &mut self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut *io).poll_shutdown(cx))?;
            self.is_shut = true;
        }
        let mut unread = [MaybeUninit::uninit(); READ_SIZE];
        loop {
            let mut buffer = ReadBuf::uninit(&mut unread);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
