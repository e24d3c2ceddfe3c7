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
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    roots.add_parsable_certificates(certificates);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| text(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name =
        ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|error| text(&error))?;
    let stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| text(&error))?;
    exchange(stream, &url).await
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
