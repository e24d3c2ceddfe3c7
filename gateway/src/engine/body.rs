//! Streams the response body. It reads from the replica only when the client can take more (back-pressure).

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::{Buf as _, Bytes};
use shared::service::{Chunks, Piece};

use super::UpstreamError;
use super::pool::{Connection, ReplicaConnections, take};
use super::sending::Sending;
use super::wire::Framing;

/// Longest pause between two reads.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A part of the body is not passed on before it has this size, if the replica has already sent more.
const MIN_PART: usize = 32 * 1024;

/// A connection with an incomplete response.
pub(super) struct Receiving {
    pub(super) connection: Connection,
    /// The unsent rest of the request, if the response came early.
    pub(super) sending: Sending,
    /// Where the connection goes afterwards, if it can be reused.
    pub(super) keep: Option<Rc<ReplicaConnections>>,
}

/// The body of a response. If it is dropped early, the connection is closed.
pub struct ResponseBody {
    receiving: Option<Receiving>,
    size: BodySize,
    left: Left,
    end: Option<Instant>,
    /// Since when the body waits for the next byte, and until when it must arrive. Set while the body waits.
    waits: Option<(Instant, Instant)>,
    on_end: Option<OnEnd>,
}

/// Gets the error that ends the body, or `None` at its proper end.
type OnEnd = Box<dyn FnOnce(Option<&UpstreamError>)>;

enum Left {
    Nothing,
    Bytes(u64),
    Chunks(Chunks),
    UntilClose,
}

impl ResponseBody {
    pub(super) fn new(receiving: Receiving, framing: Framing, size: BodySize, end: Option<Instant>) -> Self {
        let left = match framing {
            Framing::None => Left::Nothing,
            Framing::Length(length) => Left::Bytes(length),
            Framing::Chunked => Left::Chunks(Chunks::default()),
            Framing::Close => Left::UntilClose,
        };
        let mut body = Self { receiving: Some(receiving), size, left, end, waits: None, on_end: None };
        if matches!(body.left, Left::Nothing) {
            body.finish();
        }
        body
    }

    /// Calls `on_end` at the end of the body, unless the body is dropped before.
    pub fn on_end(&mut self, on_end: impl FnOnce(Option<&UpstreamError>) + 'static) {
        self.on_end = Some(Box::new(on_end));
    }

    /// Whether the whole body was received.
    pub fn is_over(&self) -> bool {
        self.receiving.is_none()
    }

    /// The connection to the replica, if the response is not over.
    pub(super) fn into_connection(self) -> Option<Connection> {
        self.receiving.map(|receiving| receiving.connection)
    }

    /// Returns the connection to the pool, if the request was sent completely.
    fn finish(&mut self) {
        self.left = Left::Nothing;
        let Some(Receiving { connection, sending, keep }) = self.receiving.take() else { return };
        if let Some(replica) = keep.filter(|_| sending.is_done()) {
            replica.give_back(connection);
        }
    }

    /// The next part of the body from the read buffer; `None` if more must be read.
    fn next_piece(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let Some(Receiving { connection, .. }) = &mut self.receiving else { return Ok(None) };
        let read = &mut connection.read;
        match &mut self.left {
            Left::Nothing => Ok(None),
            _ if read.is_empty() => Ok(None),
            Left::UntilClose => {
                let here = read.len();
                Ok(Some(take(read, here)))
            }
            Left::Bytes(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= here as u64;
                let bytes = take(read, here);
                if *left == 0 {
                    self.finish();
                }
                Ok(Some(bytes))
            }
            Left::Chunks(chunks) => {
                match chunks.next(read).map_err(|why| UpstreamError::Malformed(why.to_string()))? {
                    Piece::Data(skip, length) => {
                        read.advance(skip);
                        Ok(Some(take(read, length)))
                    }
                    Piece::Incomplete(skip) => {
                        read.advance(skip);
                        Ok(None)
                    }
                    Piece::End(skip) => {
                        read.advance(skip);
                        self.finish();
                        Ok(None)
                    }
                }
            }
        }
    }

    /// Whether the bytes in the read buffer are too few to be passed on, and not the last.
    fn is_short(&self) -> bool {
        let Some(Receiving { connection, sending, .. }) = &self.receiving else { return false };
        let read = connection.read.len();
        sending.is_done() && matches!(self.left, Left::Bytes(left) if read < MIN_PART && (read as u64) < left)
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let mut is_short = self.is_short();
        loop {
            if !is_short {
                match self.next_piece() {
                    Ok(Some(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                    Ok(None) if matches!(self.left, Left::Nothing) => return Poll::Ready(None),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
            let Some(receiving) = &mut self.receiving else { return Poll::Ready(None) };
            if let Err(error) = receiving.sending.poll(&mut receiving.connection.stream, cx) {
                return Poll::Ready(Some(Err(error)));
            }
            let has_bytes = !receiving.connection.read.is_empty();
            match receiving.connection.poll_read(cx) {
                Poll::Ready(Ok(1..)) => {
                    self.waits = None;
                    is_short = self.is_short();
                }
                // What has arrived goes first. After a failure, the next read finds the end of the connection.
                _ if is_short && has_bytes => is_short = false,
                Poll::Ready(Ok(0)) if matches!(self.left, Left::UntilClose) => self.finish(),
                // A truncated body must not look complete to the client.
                Poll::Ready(Ok(0)) => {
                    let early = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Some(Err(UpstreamError::Reset(early))));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(UpstreamError::Reset(error)))),
                Poll::Pending => {
                    let (since, until) = *self.waits.get_or_insert_with(|| wait(self.end));
                    ready!(receiving.connection.alarm.poll(cx, until.into()));
                    return Poll::Ready(Some(Err(UpstreamError::TimedOut(since.elapsed()))));
                }
            }
        }
    }
}

/// A wait that begins now: its beginning, and its end at the latest at `end`.
fn wait(end: Option<Instant>) -> (Instant, Instant) {
    let now = Instant::now();
    let silence = now + READ_TIMEOUT;
    (now, end.map_or(silence, |end| end.min(silence)))
}

impl MessageBody for ResponseBody {
    type Error = UpstreamError;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let polled = self.poll_bytes(cx);
        let error = match &polled {
            Poll::Ready(Some(Err(error))) => Some(error),
            _ => None,
        };
        if (error.is_some() || self.is_over())
            && let Some(on_end) = self.on_end.take()
        {
            on_end(error);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use shared::tls::Stream;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::pool::Buffers;
    use super::super::{Body, Request};
    use super::*;

    /// A body whose replica is the other end of the connection.
    async fn receiving(framing: Framing, size: BodySize) -> (ResponseBody, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let connection = Connection::new(Stream::Plain(stream), Buffers::default());
        let mut request = Request {
            head: Vec::new(),
            body: Body::None,
            is_upgrade: false,
            is_head: false,
            awaits_continue: false,
            head_timeout: Duration::ZERO,
            client: None,
            upload_end: Instant::now(),
            end: Instant::now(),
        };
        let sending = Sending::new(&mut request, &Buffers::default()).unwrap();
        (ResponseBody::new(Receiving { connection, sending, keep: None }, framing, size, None), server)
    }

    async fn next(body: &mut ResponseBody) -> Option<Result<Bytes, UpstreamError>> {
        poll_fn(|cx| Pin::new(&mut *body).poll_next(cx)).await
    }

    #[tokio::test]
    async fn parts_that_have_arrived_are_passed_on_together() {
        const LENGTH: usize = 300_000;
        let length = LENGTH as u64;
        let (mut body, mut server) = receiving(Framing::Length(length), BodySize::Sized(length)).await;
        let sent = tokio::spawn(async move { server.write_all(&[b'x'; LENGTH]).await.map(|()| server) });
        let mut parts = Vec::new();
        while let Some(part) = next(&mut body).await {
            parts.push(part.unwrap().len());
        }
        let _server = sent.await.unwrap().unwrap();
        assert_eq!(parts.iter().sum::<usize>(), LENGTH);
        assert!(parts.len() <= LENGTH / MIN_PART + 1, "{parts:?}");
    }

    #[test]
    fn the_size_of_a_chunk_may_arrive_in_two_reads_and_may_be_cut_off() {
        // With a deadline, because the thread of a body that does not wait never ends.
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut body, mut server) = receiving(Framing::Chunked, BodySize::Stream).await;
                for part in ["4\r", "\nWi", "ki\r\n1"] {
                    server.write_all(part.as_bytes()).await.unwrap();
                    let wait = tokio::time::timeout(Duration::from_millis(50), next(&mut body)).await;
                    let got = wait.ok().map(|part| part.unwrap().unwrap());
                    assert_eq!(got.is_none(), part == "4\r");
                }
                server.shutdown().await.unwrap();
                next(&mut body).await.unwrap().unwrap_err();
                done.send(()).unwrap();
            });
        });
        is_done.recv_timeout(Duration::from_secs(10)).expect("the body waits for its connection");
    }
}
