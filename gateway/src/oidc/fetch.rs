//! Fetches the keys of an issuer: one small GET, over TLS with the certificates of public authorities. The client of the
//! chassis speaks TLS only with the programs of the stack.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::{Position, Url};

const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest response, in bytes.
const MAX_ANSWER: u64 = 256 * 1024;

pub(super) async fn jwks(url: &str, ca_file: &Path) -> Result<JwkSet, String> {
    let fetched = tokio::time::timeout(TIMEOUT, get(url, ca_file)).await;
    let body = fetched.map_err(|_| "no answer in time".to_owned())??;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

async fn get(url: &str, ca_file: &Path) -> Result<Vec<u8>, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let url = Url::parse(url).map_err(|error| text(&error))?;
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(443));
    let stream =
        TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(|error| text(&error))?;
    if url.scheme() == "http" {
        return exchange(stream, &url).await;
    }
    let pem = tokio::fs::read(ca_file).await.map_err(|error| format!("{}: {error}", ca_file.display()))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| text(&error))?
        .with_root_certificates(roots(&pem)?)
        .with_no_client_auth();
    let name =
        ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|error| text(&error))?;
    let stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| text(&error))?;
    exchange(stream, &url).await
}

/// The certificates in a PEM file. Those that cannot be read are left out.
pub(super) fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
    if roots.is_empty() { Err("there is no certificate".to_owned()) } else { Ok(roots) }
}

/// Sends a GET with HTTP/1.0, so that the body ends with the connection and is not in chunks.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, url: &Url) -> Result<Vec<u8>, String> {
    let (host, target) =
        (&url[Position::BeforeHost..Position::AfterPort], &url[Position::BeforePath..Position::AfterQuery]);
    let request = format!("GET {target} HTTP/1.0\r\nhost: {host}\r\naccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    // Some servers end TLS without saying so: the length is checked below.
    let read = stream.take(MAX_ANSWER).read_to_end(&mut answer).await;
    if answer.len() as u64 == MAX_ANSWER {
        return Err("the answer is too long".to_owned());
    }
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(&answer) {
        Ok(httparse::Status::Complete(length)) => length,
        _ => return Err(read.err().map_or("the answer is not HTTP".to_owned(), |error| error.to_string())),
    };
    if response.code != Some(200) {
        return Err(format!("the answer is {}", response.code.unwrap_or_default()));
    }
    let field = |name: &str| {
        let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        field.and_then(|field| str::from_utf8(field.value).ok())
    };
    let body = &answer[length..];
    if field("content-length").is_some_and(|length| length.trim().parse() != Ok(body.len())) {
        return Err("the answer broke off".to_owned());
    }
    Ok(body.to_vec())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::*;

    const KEYS: &str = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}";

    /// An authority whose certificate is in a file.
    struct Authority {
        issuer: rcgen::Issuer<'static, KeyPair>,
        file: PathBuf,
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let file = std::env::temp_dir().join(format!("authority-{}.pem", uuid::Uuid::now_v7()));
            std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
            Self { issuer: Issuer::new(params, key), file }
        }

        /// The URL of a server at 127.0.0.1 with a certificate for `name`. It says this to each client, and closes the
        /// connection without saying so in TLS.
        fn serve(&self, name: &str, said: &'static str) -> String {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new([name.to_owned()]).unwrap();
            let certificate = certificate.signed_by(&key, &self.issuer).unwrap();
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth();
            let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            let config = config.with_single_cert(vec![certificate.der().clone()], private).unwrap();
            let config = Arc::new(config);
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let connection = ServerConnection::new(config.clone()).unwrap();
                    let mut stream = StreamOwned::new(connection, stream.unwrap());
                    // A client that does not believe the certificate leaves here.
                    if stream.read(&mut [0; 4096]).is_ok() {
                        stream.write_all(said.as_bytes()).unwrap_or_default();
                        stream.flush().unwrap_or_default();
                    }
                }
            });
            format!("https://127.0.0.1:{port}/keys")
        }
    }

    impl Drop for Authority {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.file);
        }
    }

    #[tokio::test]
    async fn keys_come_only_from_a_server_that_an_authority_of_the_file_vouches_for() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        assert!(jwks(&ours.serve("127.0.0.1", KEYS), &ours.file).await.unwrap().keys.is_empty());
        for (url, why) in [
            (theirs.serve("127.0.0.1", KEYS), "invalid peer certificate: "),
            (ours.serve("127.0.0.2", KEYS), "not valid for name"),
        ] {
            let refused = jwks(&url, &ours.file).await.unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        let refused = jwks(&ours.serve("127.0.0.1", KEYS), Path::new("/nowhere.pem")).await.unwrap_err();
        assert!(refused.starts_with("/nowhere.pem: "), "{refused}");
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_not_used_although_tls_does_not_tell() {
        let authority = Authority::new();
        for (said, why) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"keys\":[]}", "the answer broke off"),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "the answer is 404"),
        ] {
            let refused = jwks(&authority.serve("127.0.0.1", said), &authority.file).await.unwrap_err();
            assert_eq!(refused, why);
        }
        let cut = jwks(&authority.serve("127.0.0.1", "HTTP/1.1 200 OK\r\ncontent-le"), &authority.file).await;
        assert!(cut.is_err());
    }

    #[test]
    fn a_file_without_a_certificate_has_no_authorities() {
        assert!(roots(b"not PEM").is_err());
    }
}
