//! The idle connections of one thread.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::web::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use shared::alarm::Alarm;
use shared::tls::Stream;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio_util::io::poll_read_buf;

/// A connection that was idle for this long is not reused. Servers close theirs after 75 s, so they rarely close a
/// connection while a request is sent on it. If that happens, the result is `UpstreamError::Stale`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections of a thread per replica: as many as the replica may have requests in flight.
const MAX_IDLE: usize = 256;
/// Size of the buffer for a head, and the most bytes that one read puts there.
pub(super) const READ_SIZE: usize = 16 * 1024;
/// Size of the buffer after a read that has filled the first one. The more bytes move at once, the less processor time each
/// costs.
const LARGE_BUFFER: usize = 112 * 1024;
/// A buffer with less space than this is full.
const MIN_READ: usize = 4 * 1024;
/// Buffers that are kept for the next reads.
const MAX_BUFFERS: usize = 256;
const MAX_LARGE_BUFFERS: usize = 16;

/// A connection and its read buffer.
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) read: BytesMut,
    pub(super) alarm: Alarm,
    reused: bool,
    /// The bytes of the largest read of this response; 0 if the server has not sent a byte. An informational head is a
    /// response, too.
    largest_read: usize,
    /// The same for the response before.
    earlier_read: usize,
    buffers: Buffers,
}

impl Connection {
    pub(super) fn new(stream: Stream, buffers: Buffers) -> Self {
        let (read, alarm) = (BytesMut::new(), Alarm::default());
        Self { stream, read, alarm, reused: false, largest_read: 0, earlier_read: 0, buffers }
    }

    /// Whether the connection was idle before this request, and the server has sent nothing since.
    pub(super) fn is_unanswered(&self) -> bool {
        self.reused && self.largest_read == 0
    }

    /// Reads into the buffer; returns 0 if the server has closed the connection. A connection that waits has no buffer,
    /// unless it has unread bytes. So a few buffers serve all connections, and stay in the processor's cache. After a large
    /// response, the next one is read into a large buffer from its beginning.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let is_large = self.largest_read.max(self.earlier_read) >= READ_SIZE;
        let size = if is_large { LARGE_BUFFER } else { READ_SIZE };
        if self.read.capacity() - self.read.len() < MIN_READ {
            let full = std::mem::take(&mut self.read);
            if full.is_empty() {
                self.buffers.put(full);
                self.read = self.buffers.take(size);
            } else {
                self.read = self.buffers.take(LARGE_BUFFER);
                self.read.extend_from_slice(&full);
                self.buffers.put(full);
            }
        }
        let polled = poll_read_buf(Pin::new(&mut self.stream), cx, &mut (&mut self.read).limit(size));
        match polled {
            Poll::Ready(Ok(read)) => self.largest_read = self.largest_read.max(read),
            Poll::Pending if self.read.is_empty() => self.buffers.put(std::mem::take(&mut self.read)),
            _ => {}
        }
        polled
    }
}

/// The idle connections of one thread, and its spare buffers.
#[derive(Clone, Default)]
pub(super) struct IdleConnections {
    by_replica: Rc<RefCell<BTreeMap<String, Rc<ReplicaConnections>>>>,
    /// The last time when the connections of all replicas were looked at.
    swept: Rc<Cell<Option<Instant>>>,
    buffers: Buffers,
}

/// The idle connections to one replica.
pub(super) struct ReplicaConnections {
    /// The most recently used one is the last.
    idle: RefCell<VecDeque<Idle>>,
    buffers: Buffers,
}

struct Idle {
    stream: Stream,
    alarm: Alarm,
    since: Instant,
    /// See [`Connection::largest_read`].
    largest_read: usize,
}

/// Empty buffers, to be used again.
#[derive(Clone, Default)]
pub(super) struct Buffers(Rc<RefCell<Spare>>);

#[derive(Default)]
struct Spare {
    small: Vec<BytesMut>,
    /// Each has more than [`READ_SIZE`].
    large: Vec<BytesMut>,
}

impl Buffers {
    /// An empty buffer with space for `size` bytes.
    pub(super) fn take(&self, size: usize) -> BytesMut {
        let mut spare = self.0.borrow_mut();
        let stack = if size > READ_SIZE { &mut spare.large } else { &mut spare.small };
        let mut buffer = stack.pop().unwrap_or_default();
        buffer.reserve(size);
        buffer
    }

    /// Keeps the memory of `buffer` that is not in use: all of it, if no part of its bytes is.
    pub(super) fn put(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut spare = self.0.borrow_mut();
        let (stack, most) = if buffer.try_reclaim(READ_SIZE + 1) {
            (&mut spare.large, MAX_LARGE_BUFFERS)
        } else if buffer.try_reclaim(READ_SIZE) {
            (&mut spare.small, MAX_BUFFERS)
        } else {
            return;
        };
        if stack.len() < most {
            stack.push(buffer);
        }
    }
}

impl IdleConnections {
    pub(super) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The connections with this key.
    pub(super) fn replica(&self, key: &str, now: Instant) -> Rc<ReplicaConnections> {
        self.sweep(now);
        let mut replicas = self.by_replica.borrow_mut();
        if let Some(known) = replicas.get(key) {
            return known.clone();
        }
        let replica = Rc::new(ReplicaConnections { idle: RefCell::default(), buffers: self.buffers.clone() });
        replicas.insert(key.to_owned(), replica.clone());
        replica
    }

    /// Closes expired connections, also those to replicas that get no more requests. Their servers have closed them or
    /// will, and each holds a descriptor here.
    fn sweep(&self, now: Instant) {
        if self.swept.get().is_some_and(|swept| now.saturating_duration_since(swept) < IDLE_TIMEOUT) {
            return;
        }
        self.swept.set(Some(now));
        self.by_replica.borrow_mut().retain(|_, replica| {
            replica.close_expired(now);
            Rc::strong_count(replica) > 1 || !replica.idle.borrow().is_empty()
        });
    }
}

impl ReplicaConnections {
    /// Takes the most recently used connection that is still open.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { mut stream, alarm, since, largest_read }) = idle.pop_back() {
            if since.elapsed() >= IDLE_TIMEOUT {
                // All others have been idle for longer.
                idle.clear();
                return None;
            }
            if is_open(&mut stream) {
                let new = Connection::new(stream, self.buffers.clone());
                return Some(Connection { alarm, reused: true, earlier_read: largest_read, ..new });
            }
        }
        None
    }

    /// Keeps a connection for reuse.
    pub(super) fn give_back(&self, connection: Connection) {
        let Connection { stream, read, alarm, largest_read, .. } = connection;
        // Bytes after the end of the response: the connection is not safe to reuse.
        if !read.is_empty() {
            return;
        }
        self.buffers.put(read);
        let now = Instant::now();
        self.close_expired(now);
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            idle.push_back(Idle { stream, alarm, since: now, largest_read });
        }
    }

    fn close_expired(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        // The connections that were idle longest are at the front.
        while idle.front().is_some_and(|idle| now.saturating_duration_since(idle.since) >= IDLE_TIMEOUT) {
            idle.pop_front();
        }
    }
}

/// Whether the server has neither closed the idle connection nor sent anything on it.
fn is_open(stream: &mut Stream) -> bool {
    let mut byte = [0; 1];
    let mut read = ReadBuf::new(&mut byte);
    unconstrained(poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut read))).now_or_never().is_none()
}

/// A part of at most this many bytes, or of a quarter of what is left of its buffer, is copied out of the buffer. A larger
/// part shares the buffer's memory, so that the next read needs a new buffer.
const MAX_COPY: usize = 4 * 1024;

/// Takes the first `length` bytes of a read buffer.
pub(super) fn take(read: &mut BytesMut, length: usize) -> Bytes {
    if length > MAX_COPY.max(read.capacity() / 4) {
        return read.split_to(length).freeze();
    }
    let taken = Bytes::copy_from_slice(&read[..length]);
    read.advance(length);
    taken
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn connections_to_a_replica_without_requests_are_closed_when_another_one_gets_a_request() {
        let (pool, now) = (IdleConnections::default(), Instant::now());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let connection = Connection::new(Stream::Plain(stream), Buffers::default());
        pool.replica("used", now);
        pool.replica("left", now).give_back(connection);
        pool.replica("used", now + IDLE_TIMEOUT / 2);
        assert_eq!(pool.by_replica.borrow().len(), 2, "the connection may still be used");
        pool.replica("used", now + 2 * IDLE_TIMEOUT);
        let closed = tokio::time::timeout(Duration::from_secs(5), server.read(&mut [0])).await;
        assert_eq!(closed.expect("it is closed").unwrap(), 0);
        assert!(!pool.by_replica.borrow().contains_key("left"));
    }

    #[test]
    fn the_memory_of_a_buffer_is_used_again_unless_a_part_of_its_bytes_is_in_use() {
        for size in [READ_SIZE, LARGE_BUFFER] {
            let buffers = Buffers::default();
            let mut first = buffers.take(size);
            first.extend_from_slice(&vec![1; size]);
            let (memory, part) = (first.as_ptr(), take(&mut first, size / 2));
            buffers.put(first);
            let mut second = buffers.take(size);
            assert_ne!(second.as_ptr(), memory, "a part is in use");
            drop(part);
            second.extend_from_slice(&vec![2; size]);
            let (memory, part) = (second.as_ptr(), take(&mut second, size));
            drop(part);
            buffers.put(second);
            assert_eq!(buffers.take(size).as_ptr(), memory);
        }
    }

    #[tokio::test]
    async fn after_a_large_response_the_next_one_is_read_into_a_large_buffer() {
        const LENGTH: usize = 4 * READ_SIZE;
        let (pool, now) = (IdleConnections::default(), Instant::now());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut connection = Connection::new(Stream::Plain(stream), Buffers::default());
        for (is_large, sends) in [(false, LENGTH), (true, 1), (false, 1)] {
            server.write_all(&vec![b'x'; sends]).await.unwrap();
            let mut read = 0;
            while read < sends {
                let next = poll_fn(|cx| connection.poll_read(cx)).await.unwrap();
                let capacity = connection.read.capacity();
                assert!(read > 0 || (capacity >= LARGE_BUFFER) == is_large, "{sends}: {capacity}");
                read += next;
                connection.read.clear();
            }
            pool.replica("a", now).give_back(connection);
            connection = pool.replica("a", now).take().unwrap();
        }
    }

    #[test]
    fn a_small_part_does_not_keep_a_large_buffer() {
        let mut read = Buffers::default().take(LARGE_BUFFER);
        read.extend_from_slice(&[1; LARGE_BUFFER]);
        let (memory, [small, large]) =
            (read.as_ptr(), [20 * 1024, 40 * 1024].map(|part| take(&mut read, part)));
        assert_ne!(small.as_ptr(), memory);
        assert_eq!(large.as_ptr(), memory.wrapping_add(small.len()));
    }

    #[test]
    fn few_large_buffers_are_kept() {
        let buffers = Buffers::default();
        let taken: Vec<_> = (0..2 * MAX_LARGE_BUFFERS).map(|_| buffers.take(LARGE_BUFFER)).collect();
        taken.into_iter().for_each(|buffer| buffers.put(buffer));
        assert_eq!(buffers.0.borrow().large.len(), MAX_LARGE_BUFFERS);
        assert!(buffers.0.borrow().small.is_empty());
    }
}
