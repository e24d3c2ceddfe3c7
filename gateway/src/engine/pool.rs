//! The idle connections of one thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_web::web::{Bytes, BytesMut};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;

/// Servers keep idle connections for 75 s. The gateway closes them earlier, so that it never sends on a
/// connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections per replica.
const MAX_IDLE: usize = 64;
/// Bytes per read.
const READ_SIZE: usize = 16 * 1024;

/// A connection and its read buffer.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
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
type Idle = (TcpStream, Instant);

impl IdleConnections {
    /// Takes the most recently used connection to `authority` that is still open.
    pub(super) fn take(&self, authority: &str) -> Option<Connection> {
        let mut pool = self.0.borrow_mut();
        let idle = pool.get_mut(authority)?;
        while let Some((stream, since)) = idle.pop() {
            if since.elapsed() >= IDLE_TIMEOUT {
                // The others are older.
                idle.clear();
                return None;
            }
            if is_open(&stream) {
                return Some(Connection { stream, read: BytesMut::new(), reused: true });
            }
        }
        None
    }

    /// Keeps a connection for reuse.
    pub(super) fn give_back(&self, authority: &str, connection: Connection) {
        // Bytes after the end of the response: the connection is not safe to reuse.
        if !connection.read.is_empty() {
            return;
        }
        let mut pool = self.0.borrow_mut();
        if !pool.contains_key(authority) {
            // A new replica may replace another one: forget replicas without recent connections.
            pool.retain(|_, idle| idle.last().is_some_and(|(_, since)| since.elapsed() < IDLE_TIMEOUT));
            pool.insert(authority.to_owned(), Vec::new());
        }
        if let Some(idle) = pool.get_mut(authority).filter(|idle| idle.len() < MAX_IDLE) {
            idle.push((connection.stream, Instant::now()));
        }
    }
}

/// Whether the server has neither closed the idle connection nor sent anything on it.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0; 1];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Removes `skip` bytes from the buffer, and then takes `length` bytes.
pub(super) fn split(read: &mut BytesMut, skip: usize, length: usize) -> Bytes {
    let _ = read.split_to(skip);
    read.split_to(length).freeze()
}
