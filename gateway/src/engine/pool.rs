//! The idle connections of one thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::web::{Buf as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use shared::alarm::Alarm;
use shared::tls::Stream;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio_util::io::poll_read_buf;

/// Servers keep idle connections for 75 s. The gateway closes them earlier, so that it never sends on a
/// connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections per replica.
const MAX_IDLE: usize = 64;
/// Bytes per read.
const READ_SIZE: usize = 16 * 1024;
/// Buffers that are kept for the next requests.
const MAX_BUFFERS: usize = 64;

/// A connection and its read buffer.
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) read: BytesMut,
    pub(super) alarm: Alarm,
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
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.read)
    }
}

/// The idle connections of one thread, and its spare buffers.
#[derive(Clone, Default)]
pub(super) struct IdleConnections {
    by_replica: Rc<RefCell<HashMap<String, Vec<Idle>>>>,
    buffers: Rc<RefCell<Vec<BytesMut>>>,
}

/// A connection, and the time since which it is idle.
type Idle = (Stream, Alarm, Instant);

impl IdleConnections {
    /// Takes the most recently used connection with this key that is still open.
    pub(super) fn take(&self, key: &str) -> Option<Connection> {
        let mut pool = self.by_replica.borrow_mut();
        let idle = pool.get_mut(key)?;
        while let Some((mut stream, alarm, since)) = idle.pop() {
            if since.elapsed() >= IDLE_TIMEOUT {
                // The others are older.
                idle.clear();
                return None;
            }
            if is_open(&mut stream) {
                return Some(Connection { stream, read: self.buffer(), alarm, reused: true });
            }
        }
        None
    }

    /// An empty buffer.
    pub(super) fn buffer(&self) -> BytesMut {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps an empty buffer for reuse.
    pub(super) fn keep_buffer(&self, buffer: BytesMut) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < MAX_BUFFERS {
            buffers.push(buffer);
        }
    }

    /// Keeps a connection for reuse.
    pub(super) fn give_back(&self, key: &str, connection: Connection) {
        let Connection { stream, read, alarm, .. } = connection;
        // Bytes after the end of the response: the connection is not safe to reuse.
        if !read.is_empty() {
            return;
        }
        self.keep_buffer(read);
        let mut pool = self.by_replica.borrow_mut();
        if !pool.contains_key(key) {
            // A new replica may replace another one: forget replicas without recent connections.
            pool.retain(|_, idle| idle.last().is_some_and(|(.., since)| since.elapsed() < IDLE_TIMEOUT));
            pool.insert(key.to_owned(), Vec::new());
        }
        if let Some(idle) = pool.get_mut(key).filter(|idle| idle.len() < MAX_IDLE) {
            idle.push((stream, alarm, Instant::now()));
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
    read.advance(skip);
    read.split_to(length).freeze()
}
