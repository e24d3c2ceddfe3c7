//! Certificates of a made-up site, and clients that believe them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use shared::testing::{Keys, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::harness::{Gateway, Upstream, configuration, listed};

/// A folder with gateway.toml, an authority and its certificates.
pub(crate) struct Site {
    folder: PathBuf,
    authority: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("site-{}", uuid::Uuid::now_v7()));
        fs::create_dir_all(&folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "the authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        fs::write(folder.join("ca.pem"), root.pem()).unwrap();
        Self { folder, authority: Issuer::new(params, key), roots: roots.into() }
    }

    /// A new certificate for `names` in `FILE.pem`, with its key in `FILE.key`.
    pub(crate) fn certify(&self, file: &str, names: &[&str]) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.authority).unwrap();
        self.write(&format!("{file}.key"), &key.serialize_pem());
        self.write(&format!("{file}.pem"), &certificate.pem());
        certificate.der().clone()
    }

    /// Replaces a file at once.
    pub(crate) fn write(&self, file: &str, content: &str) {
        let new = self.folder.join("new");
        fs::write(&new, content).unwrap();
        fs::rename(new, self.folder.join(file)).unwrap();
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// gateway.toml: certificates by file and names. `more` are lines of `[tls]`.
    pub(crate) fn configure(&self, more: &str, certificates: &[(&str, &[&str])]) {
        let entry = |(file, names): &(&str, &[&str])| {
            format!(
                "[[tls.certificates]]\nnames = {names:?}\ncertificate = \"{file}.pem\"\nkey = \"{file}.key\"\n"
            )
        };
        let entries: String = certificates.iter().map(entry).collect();
        let limits = "rate_per_second = 100000\nrate_burst = 100000";
        let file = configuration(&format!("{limits}\n[tls]\nport = 0\n{more}\n{entries}"));
        self.write("gateway.toml", &file);
    }

    pub(crate) async fn start(&self, ports: [u16; 2], upstreams: &[&Upstream]) -> anyhow::Result<Gateway> {
        Gateway::start_from(&self.path("gateway.toml"), &Keys::new("an-issuer"), &listed(upstreams), ports)
            .await
    }

    /// A client that offers `protocols`, and connects with each as the first time.
    pub(crate) fn client(&self, protocols: &[&str]) -> TlsConnector {
        let config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    /// Connects to `name` at `address`.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        self.client(protocols).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(Path::new(&self.folder));
    }
}

/// The certificate that the server has shown.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Sends a request over HTTP/1.1, and reads until the end.
pub(crate) async fn ask(stream: &mut TlsStream<TcpStream>, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut answered = Vec::new();
    stream.read_to_end(&mut answered).await?;
    Ok(String::from_utf8_lossy(&answered).into_owned())
}

/// Polls until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    eventually(what, Duration::from_secs(20), async || is_so().await.then_some(())).await;
}
