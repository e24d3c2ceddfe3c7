//! Dormant connections. A connection without a request for [`DORMANT_AFTER`] keeps its socket, but not the dispatcher of
//! actix, whose two buffers of 8 KiB are most of its memory. The next request gets a new dispatcher.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::request_body::BodySource;
use super::{Connection, Exchange};

/// A client that sends the next request soon finds the dispatcher of the last one.
pub(super) const DORMANT_AFTER: Duration = Duration::from_millis(10);

/// The connection, as actix has it while there are requests.
pub(in crate::service) struct Lent<T>(Rc<RefCell<Connection<T>>>);

impl<T: AsyncRead + AsyncWrite + Unpin> Lent<T> {
    /// What actix tells a handler about the connection.
    pub(in crate::service) fn exchange(&self) -> Rc<Exchange> {
        self.0.borrow().exchange()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Lent<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, out)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lent<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Connection<T> {
    /// Serves the connection to its end: with a dispatcher that `dispatch` makes, whenever there are requests. When `closing`
    /// is ready, a dormant connection closes.
    pub(in crate::service) async fn serve<F: Future>(
        self,
        closing: impl Future<Output = ()>,
        dispatch: impl Fn(Lent<T>) -> F,
    ) {
        let exchange = self.exchange();
        let connection = Rc::new(RefCell::new(self));
        let source: Weak<RefCell<dyn BodySource>> = Rc::downgrade(&connection) as _;
        exchange.source.replace(Some(source));
        let mut closing = std::pin::pin!(closing);
        loop {
            let request = poll_fn(|cx| connection.borrow_mut().poll_next_request(cx));
            match select(request, closing.as_mut()).await {
                Either::Left((true, _)) => {}
                Either::Left((false, _)) | Either::Right(_) => break,
            }
            exchange.becomes_dormant.set(false);
            let mut dispatcher = Box::pin(dispatch(Lent(connection.clone())));
            let is_over = poll_fn(|cx| match exchange.becomes_dormant.take() {
                true => Poll::Ready(false),
                false => dispatcher.as_mut().poll(cx).map(|_| true),
            });
            if is_over.await {
                return;
            }
        }
        // TLS announces the end. If the client does not take it now, the connection ends without.
        let end = poll_fn(|cx| Poll::Ready(Pin::new(&mut *connection.borrow_mut()).poll_shutdown(cx)));
        let _ = end.await;
    }

    /// Ready when the client has sent something (`true`), or when the connection is over.
    fn poll_next_request(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.input.is_empty() {
            return Poll::Ready(true);
        }
        let is_over = match self.poll_input(cx) {
            Poll::Ready(read) => read.is_err() || self.has_ended,
            Poll::Pending => {
                ready!(self.poll_timeout(cx));
                true
            }
        };
        self.has_ended = is_over;
        Poll::Ready(!is_over)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::IpAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::time::{Instant, sleep};

    use super::super::{ClientLimits, IdleConnections, Scheme};
    use super::*;

    const LIMITS: ClientLimits = ClientLimits {
        head_timeout: Duration::from_secs(5),
        head_size: 1024,
        min_rate: 1024,
        grace: Duration::from_secs(5),
    };

    /// Counts the dispatchers that were made, and that exist.
    #[derive(Default)]
    struct Dispatchers {
        made: Cell<usize>,
        existing: Cell<usize>,
    }

    struct Existing(Rc<Dispatchers>);

    impl Drop for Existing {
        fn drop(&mut self) {
            self.0.existing.set(self.0.existing.get() - 1);
        }
    }

    impl Dispatchers {
        fn enter(self: &Rc<Self>) -> Existing {
            self.made.set(self.made.get() + 1);
            self.existing.set(self.existing.get() + 1);
            Existing(self.clone())
        }

        fn made_and_existing(&self) -> (usize, usize) {
            (self.made.get(), self.existing.get())
        }
    }

    /// Answers each request with its own head, as actix reads and writes.
    async fn echo(mut connection: Lent<DuplexStream>, _existing: Existing) {
        let mut request = [0; 1024];
        loop {
            let length = connection.read(&mut request).await.unwrap();
            if length == 0 {
                break;
            }
            connection.write_all(&request[..length]).await.unwrap();
            drop(Exchange::answering(connection.exchange()));
            connection.flush().await.unwrap();
        }
        connection.shutdown().await.unwrap();
    }

    /// Runs `client` with its end of a connection that is served until `closing` is ready.
    async fn with_client<R>(
        closing: impl Future<Output = ()>,
        client: impl AsyncFnOnce(DuplexStream, &Dispatchers, &IdleConnections) -> R,
    ) -> R {
        let (near, far) = tokio::io::duplex(4096);
        let idle = Rc::new(IdleConnections::default());
        let peer = IpAddr::from([127, 0, 0, 1]);
        let connection = Connection::new(far, peer, Scheme::Http, "a-service", LIMITS, &idle);
        let dispatchers = Rc::new(Dispatchers::default());
        let served = connection.serve(closing, |lent| echo(lent, dispatchers.enter()));
        let served = async {
            tokio::join!(served, idle.make_dormant());
        };
        match select(Box::pin(client(near, &dispatchers, &idle)), Box::pin(served)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => unreachable!("one of them never ends"),
        }
    }

    async fn exchange(stream: &mut DuplexStream, request: &str) {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = vec![0; request.len()];
        stream.read_exact(&mut response).await.unwrap();
        assert_eq!(response, request.as_bytes());
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_a_dispatcher_only_while_there_are_requests() {
        with_client(std::future::pending(), async |mut stream, dispatchers, _| {
            sleep(Duration::from_secs(1)).await;
            assert_eq!(dispatchers.made_and_existing(), (0, 0), "before the first request");
            for number in 1..4 {
                exchange(&mut stream, GET).await;
                exchange(&mut stream, GET).await;
                assert_eq!(dispatchers.made_and_existing(), (number, 1));
                sleep(3 * DORMANT_AFTER).await;
                assert_eq!(dispatchers.made_and_existing(), (number, 0));
            }
            stream.write_all(&GET.as_bytes()[..10]).await.unwrap();
            sleep(3 * DORMANT_AFTER).await;
            assert_eq!(dispatchers.made_and_existing(), (4, 1), "a part of a head has arrived");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_dormant_connection_is_closed_after_75_seconds_when_it_is_evicted_and_when_the_program_drains()
    {
        with_client(std::future::pending(), async |mut stream, _, _| {
            exchange(&mut stream, GET).await;
            let answered = Instant::now();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
            assert_eq!(answered.elapsed().as_secs(), 75);
        })
        .await;
        with_client(std::future::pending(), async |mut stream, _, idle| {
            exchange(&mut stream, GET).await;
            sleep(Duration::from_secs(1)).await;
            idle.evict();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        })
        .await;
        let closing = sleep(Duration::from_secs(2));
        with_client(closing, async |mut stream, _, _| {
            let began = Instant::now();
            exchange(&mut stream, GET).await;
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
            assert_eq!(began.elapsed().as_secs(), 2);
        })
        .await;
    }
}
