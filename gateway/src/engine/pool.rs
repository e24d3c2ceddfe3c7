//! The idle connections of one thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_web::web::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use shared::tls::Stream;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::task::coop::unconstrained;

/// Servers keep idle connections for 75 s. The gateway closes them earlier, so that it never sends on a
/// connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections per replica.
const MAX_IDLE: usize = 64;
/// Bytes per read.
const READ_SIZE: usize = 16 * 1024;

/// A connection and its read buffer.
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) read: BytesMut,
    pub(super) reused: bool,
}

impl Connection {
    /// Whether a failure is explained by the server's closing an idle connection: nothing was received on it.
    pub(super) fn is_stale(&self) -> bool {
        self.reused && self.read.is_empty()
    }

    /// Reads into the buffer; returns 0 if the server has closed the connection.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(READ_SIZE);
        let spare = self.read.len();
        self.read.resize(spare + READ_SIZE, 0);
        let mut buffer = ReadBuf::new(&mut self.read[spare..]);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        let filled = buffer.filled().len();
        self.read.truncate(spare + filled);
        ready!(polled)?;
        Poll::Ready(Ok(filled))
    }
}

/// The idle connections of one thread.
#[derive(Clone, Default)]
pub(super) struct IdleConnections(Rc<RefCell<HashMap<String, Vec<Idle>>>>);

/// A connection, and the time since which it is idle.
type Idle = (Stream, Instant);

impl IdleConnections {
    /// Takes the most recently used connection with this key that is still open.
    pub(super) fn take(&self, key: &str) -> Option<Connection> {
        let mut pool = self.0.borrow_mut();
        let idle = pool.get_mut(key)?;
        while let Some((mut stream, since)) = idle.pop() {
            if since.elapsed() >= IDLE_TIMEOUT {
                // The others are older.
                idle.clear();
                return None;
            }
            if is_open(&mut stream) {
                return Some(Connection { stream, read: BytesMut::new(), reused: true });
            }
        }
        None
    }

    /// Keeps a connection for reuse.
    pub(super) fn give_back(&self, key: &str, connection: Connection) {
        // Bytes after the end of the response: the connection is not safe to reuse.
        if !connection.read.is_empty() {
            return;
        }
        let mut pool = self.0.borrow_mut();
        if !pool.contains_key(key) {
            // A new replica may replace another one: forget replicas without recent connections.
            pool.retain(|_, idle| idle.last().is_some_and(|(_, since)| since.elapsed() < IDLE_TIMEOUT));
            pool.insert(key.to_owned(), Vec::new());
        }
        if let Some(idle) = pool.get_mut(key).filter(|idle| idle.len() < MAX_IDLE) {
            idle.push((connection.stream, Instant::now()));
        }
    }
}

/// Whether the server has neither closed the idle connection nor sent anything on it.
fn is_open(stream: &mut Stream) -> bool {
    let mut byte = [0; 1];
    let mut read = ReadBuf::new(&mut byte);
    unconstrained(poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut read))).now_or_never().is_none()
}

/// Removes `skip` bytes from the buffer, and then takes `length` bytes.
pub(super) fn split(read: &mut BytesMut, skip: usize, length: usize) -> Bytes {
    let _ = read.split_to(skip);
    read.split_to(length).freeze()
}
