//! Idle connections to replicas, kept per thread.

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

/// Servers keep idle connections 75 s: this side gives up first, so that it never sends into a
/// closing one.
const IDLE: Duration = Duration::from_secs(30);
/// Idle connections kept to one replica.
const KEPT: usize = 64;
/// Bytes read from a connection at once.
const READ: usize = 16 * 1024;

/// A connection, and what was read from it beyond the last answer.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) read: BytesMut,
    pub(super) reused: bool,
}

impl Connection {
    /// Whether it broke as a kept connection does that the other side has given up meanwhile.
    pub(super) fn is_stale(&self) -> bool {
        self.reused && self.read.is_empty()
    }

    /// Reads into the buffer; 0 at the connection's end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(READ);
        let spare = self.read.len();
        self.read.resize(spare + READ, 0);
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

/// A connection, and since when it is idle.
type Idle = (TcpStream, Instant);

impl IdleConnections {
    /// An idle connection to `authority` that is still open, the last used first.
    pub(super) fn take(&self, authority: &str) -> Option<Connection> {
        let mut pool = self.0.borrow_mut();
        let idle = pool.get_mut(authority)?;
        while let Some((stream, since)) = idle.pop() {
            if since.elapsed() >= IDLE {
                // All below are older.
                idle.clear();
                return None;
            }
            if is_open(&stream) {
                return Some(Connection { stream, read: BytesMut::new(), reused: true });
            }
        }
        None
    }

    /// Keeps a connection whose answer is over.
    pub(super) fn give_back(&self, authority: &str, connection: Connection) {
        // More bytes than the answer has: nobody knows what they are.
        if !connection.read.is_empty() {
            return;
        }
        let mut pool = self.0.borrow_mut();
        if !pool.contains_key(authority) {
            // A newcomer, perhaps in somebody's place: time to forget who is asked no more.
            pool.retain(|_, idle| idle.last().is_some_and(|(_, since)| since.elapsed() < IDLE));
            pool.insert(authority.to_owned(), Vec::new());
        }
        if let Some(idle) = pool.get_mut(authority).filter(|idle| idle.len() < KEPT) {
            idle.push((connection.stream, Instant::now()));
        }
    }
}

/// Whether the other side has neither closed an idle connection nor said anything on it.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0; 1];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Takes the first `length` bytes out of what was read.
pub(super) fn split(read: &mut BytesMut, skip: usize, length: usize) -> Bytes {
    let _ = read.split_to(skip);
    read.split_to(length).freeze()
}
