//! Mutual TLS between the programs of a stack, if `TLS_FOLDER` is set.
//!
//! Every program has a certificate of the stack's CA with its name. A client accepts a server only under the name
//! of the service that it calls. A server accepts every certificate of the CA: what a caller may do is in its
//! service token.
//!
//! TLS 1.3 without resumption, so that every new connection shows a certificate that is valid now.

mod certificates; // TLS towards clients

pub use certificates::{CertificateFiles, Certificates, ClientTls};

use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_rt::net::{ActixStream, Ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use x509_parser::parse_x509_certificate;

use crate::auth::{FromPath, Reread};
use crate::config::Vars;
use crate::metrics::{self, Readings};

/// How long a client waits for the handshake, after the time to connect.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// The certificate of this program. It is read again when its folder has changed.
#[derive(Clone)]
pub struct Tls(Arc<Reread<Identity>>);

impl Tls {
    /// Reads `TLS_FOLDER`.
    pub fn from_vars(vars: &mut Vars) -> Option<Self> {
        let doc = "folder with tls.crt, tls.key and ca.crt (PEM): mutual TLS between services";
        vars.optional("TLS_FOLDER", doc).map(|folder| Self(Arc::new(folder)))
    }

    /// Adds the end of this program's certificate.
    pub fn measure(&self, readings: &mut Readings) {
        measure_end(readings, "services", self.0.get().end);
    }

    /// Connections to `service`.
    pub fn peer(&self, service: &str) -> PeerTls {
        PeerTls { tls: self.clone(), service: service.to_owned() }
    }

    /// The server's side of the handshake. A refused client is logged.
    pub async fn accept(&self, stream: TcpStream, timeout: Duration) -> io::Result<Stream> {
        let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
        let handshake = TlsAcceptor::from(self.0.get().server.clone()).accept(stream);
        let accepted = in_time(timeout, handshake).await;
        accepted.map(|stream| Stream::Tls(Box::new(stream.into()))).inspect_err(|error| {
            // A client that connects and leaves is a health check of the port.
            if !matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
                metrics::refused_connection("tls");
                log::warn!(peer, error:%; "a TLS handshake with a client failed");
            }
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

/// The client's side of TLS with one service.
#[derive(Debug, Clone)]
pub struct PeerTls {
    tls: Tls,
    service: String,
}

impl PartialEq for PeerTls {
    fn eq(&self, other: &Self) -> bool {
        self.service == other.service && Arc::ptr_eq(&self.tls.0, &other.tls.0)
    }
}

impl PeerTls {
    /// The name in the server's certificate.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// # Errors
    /// Every failure is `ConnectionRefused` or `TimedOut`: nothing was sent, and the peer is to blame.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<Stream> {
        let name = ServerName::try_from(self.service.clone()).map_err(refused)?;
        let handshake = TlsConnector::from(self.tls.0.get().client.clone()).connect(name, stream);
        let connected = in_time(HANDSHAKE_TIMEOUT, handshake).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => error,
            _ => refused(error),
        });
        connected.map(|stream| Stream::Tls(Box::new(stream.into()))).inspect_err(|error| {
            log::warn!(peer_service = self.service, error:%; "a TLS handshake with a replica failed");
        })
    }
}

fn refused(why: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, format!("TLS: {why}"))
}

async fn in_time<T>(timeout: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(timeout, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The contents of a folder.
struct Identity {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    end: Option<i64>,
}

impl FromPath for Identity {
    fn from_path(folder: &Path) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&folder.join("ca.crt"))? {
            roots.add(authority).map_err(|why| format!("ca.crt: {why}"))?;
        }
        let chain = certificates(&folder.join("tls.crt"))?;
        let key = PrivateKeyDer::from_pem_file(folder.join("tls.key"));
        let key = key.map_err(|why| format!("tls.key: {why}"))?;
        Self::new(roots.into(), chain, key).map_err(|why| why.to_string())
    }
}

impl Identity {
    fn new(
        roots: Arc<RootCertStore>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let provider: Arc<CryptoProvider> = ring::default_provider().into();
        let end = first_end(&chain);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        server.send_tls13_tickets = 0;
        Ok(Self { client: client.into(), server: server.into(), end })
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.map_err(|why| format!("{}: {why}", file.display()))
}

/// Unix time at which the first of these certificates ends.
fn first_end<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> Option<i64> {
    let parsed = certificates.into_iter().filter_map(|one| parse_x509_certificate(one).ok());
    parsed.map(|(_, certificate)| certificate.validity().not_after.timestamp()).min()
}

fn measure_end(readings: &mut Readings, peers: &str, end: Option<i64>) {
    let Some(end) = end else { return };
    let help = "Unix time at which the first certificate towards these peers ends.";
    readings.gauge("tls_certificate_end_timestamp_seconds", help, &[("peers", peers)], end as f64);
}

/// A connection between two programs, with TLS or without.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, out),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl ActixStream for Stream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(self.tcp(), cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(self.tcp(), cx)
    }
}
