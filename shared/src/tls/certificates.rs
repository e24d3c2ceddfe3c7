//! TLS towards clients: the certificate is that of the name which the client asks for (SNI).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring::{Ticketer, default_provider};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

use super::{Stream, certificates, first_end, in_time, measure_end};
use crate::metrics::{self, Readings};

/// A certificate chain and its key, in PEM files.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// The names that the certificate is shown for. `*.example.com` matches one more label.
    pub names: Vec<String>,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Certificates that were read and found good.
#[derive(Debug)]
pub struct Certificates {
    by_name: BTreeMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl Certificates {
    /// The first one is the default: for clients that name no host, or an unknown one.
    ///
    /// # Errors
    /// Which file is unusable, and why: it cannot be read, is not of the key, or not for one of the names.
    pub fn read(files: &[CertificateFiles]) -> Result<Self, String> {
        let provider = default_provider();
        let (mut by_name, mut default) = (BTreeMap::new(), None);
        for files in files {
            let certified = Arc::new(certified(files, &provider)?);
            default.get_or_insert_with(|| certified.clone());
            for name in &files.names {
                let other = by_name.insert(name.to_lowercase(), certified.clone());
                if other.is_some() {
                    return Err(format!("two certificates are for {name}"));
                }
            }
        }
        default.map(|default| Self { by_name, default }).ok_or_else(|| "there is no certificate".to_owned())
    }

    fn of(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.to_lowercase();
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        self.by_name.get(&name).or_else(wildcard).unwrap_or(&self.default)
    }
}

fn certified(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let (certificate, key) = (files.certificate.display(), files.key.display());
    let chain = certificates(&files.certificate)?;
    let private = PrivateKeyDer::from_pem_file(&files.key).map_err(|why| format!("{key}: {why}"))?;
    let first = chain.first().ok_or_else(|| format!("{certificate}: there is no certificate"))?;
    let parsed = ParsedCertificate::try_from(first).map_err(|why| format!("{certificate}: {why}"))?;
    for name in &files.names {
        // A wildcard is for every label.
        let example = name.replacen("*.", "any.", 1);
        let server = ServerName::try_from(example.as_str()).map_err(|_| format!("{name:?} is not a name"))?;
        verify_server_name(&parsed, &server).map_err(|_| format!("{certificate}: it is not for {name}"))?;
    }
    CertifiedKey::from_der(chain, private, provider).map_err(|why| match why {
        rustls::Error::InconsistentKeys(_) => format!("{key}: it is not the key of {certificate}"),
        why => format!("{key}: {why}"),
    })
}

/// The server's side of TLS with clients. The certificates can be replaced: connections that are open keep theirs.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
}

#[derive(Debug)]
struct Shown(ArcSwap<Certificates>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        Some(hello.server_name().map_or(&certificates.default, |name| certificates.of(name)).clone())
    }
}

impl ClientTls {
    /// TLS 1.2 and 1.3, with HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(certificates: Certificates) -> Result<Self, rustls::Error> {
        let shown = Arc::new(Shown(ArcSwap::from_pointee(certificates)));
        let config = ServerConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth();
        let mut config = config.with_cert_resolver(shown.clone());
        config.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"].map(<[u8]>::to_vec).to_vec();
        // A client that comes again shows a ticket, and this side keeps nothing for it.
        config.ticketer = Ticketer::new()?;
        Ok(Self { config: config.into(), shown })
    }

    /// Adds the end of the certificate that ends first.
    pub fn measure(&self, readings: &mut Readings) {
        let shown = self.shown.0.load();
        let all = shown.by_name.values().chain([&shown.default]);
        measure_end(readings, "clients", first_end(all.flat_map(|certified| &certified.cert)));
    }

    /// Replaces the certificates for new connections.
    pub fn replace(&self, certificates: Certificates) {
        self.shown.0.store(Arc::new(certificates));
    }

    /// The handshake. Returns whether the client wants HTTP/2, too.
    pub(crate) async fn accept(&self, stream: TcpStream, timeout: Duration) -> io::Result<(Stream, bool)> {
        let handshake = TlsAcceptor::from(self.config.clone()).accept(stream);
        let stream = in_time(timeout, handshake).await.inspect_err(|error| {
            metrics::refused_connection("tls");
            // The public sends all kinds of things.
            log::debug!(error:%; "a TLS handshake with a client failed");
        })?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Stream::Tls(Box::new(stream.into())), is_http2))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls(…)")
    }
}
