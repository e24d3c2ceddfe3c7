//! One HTTP request to one address, with awc: no balancing and no retries.
//!
//! An awc client belongs to one thread, so each thread has its own, and one more for each service over TLS. These
//! defaults are changed: no redirects, no decompression, no Nagle's algorithm (with delayed acknowledgements it
//! costs 40 ms), and a connection that was idle for long is not reused, because its server may close it.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_service::{Service as _, fn_service};
use actix_tls::connect::{ConnectError as TcpError, ConnectInfo, Connection, Connector, Resolve, Resolver};
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use actix_web::http::{Method, StatusCode, Uri};
use actix_web::web::Bytes;
use awc::error::{ConnectError, PayloadError, SendRequestError};
use futures_util::future::LocalBoxFuture;
use serde::de::DeserializeOwned;

use crate::tls::{self, PeerTls, Stream};
use crate::trace::{Span, Traceparent};

/// Header with which the callee detects repeated requests (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Part of the time to connect.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(400);
/// A connection that was idle for longer is not reused. Servers close theirs after 75 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest response body, in bytes.
const RESPONSE_LIMIT: usize = 2 * 1024 * 1024;

thread_local! {
    static CLIENT: awc::Client = client(None);
    /// One for each service, because each has its own name in its certificate.
    static TLS_CLIENTS: RefCell<Vec<(PeerTls, awc::Client)>> = RefCell::default();
}

#[derive(Debug)]
pub struct Call {
    method: Method,
    url: String,
    peer: Option<PeerTls>,
    time: Duration,
    headers: Vec<(&'static str, String)>,
    body: Option<Bytes>,
    span: Option<Span>,
}

/// A complete response of any status.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No connection was made; nothing was sent.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// No connection was made, because this side lacks something; see [`blames_peer`].
    #[error("no connection can be made here: {0}")]
    Local(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("no answer in time")]
    TimedOut,
    /// The response is larger than 2 MiB.
    #[error("the answer is too large")]
    TooLarge,
}

impl Call {
    /// `time` limits the whole exchange.
    pub fn new(method: Method, url: String, time: Duration) -> Self {
        Self { method, url, peer: None, time, headers: Vec::new(), body: None, span: None }
    }

    /// Makes the exchange a client span, and the callee's span its child.
    pub fn traced(mut self, mut span: Span) -> Self {
        span.record(|span| {
            span.request(self.method.as_str(), None);
            span.set("url.full", self.url.clone());
            if let Ok(url) = self.url.parse::<Uri>() {
                span.set("server.address", url.host().unwrap_or_default().to_owned());
                span.set("server.port", i64::from(url.port_u16().unwrap_or(80)));
            }
        });
        if span.context().is_valid() {
            let traceparent = Traceparent::of(span.context()).as_str().to_owned();
            self.headers.push(("traceparent", traceparent));
            let state = span.context().trace_state().header();
            self.headers.extend((!state.is_empty()).then_some(("tracestate", state)));
        }
        self.span = Some(span);
        self
    }

    /// Uses TLS with `peer`, if there is one.
    pub fn to_peer(mut self, peer: Option<&PeerTls>) -> Self {
        self.peer = peer.cloned();
        self
    }

    pub fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn bearer(self, token: String) -> Self {
        self.header(AUTHORIZATION.as_str(), format!("Bearer {token}"))
    }

    pub fn json(self, body: String) -> Self {
        self.body("application/json", body)
    }

    pub fn body(self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut call = self.header(CONTENT_TYPE.as_str(), content_type.to_owned());
        call.body = Some(body.into());
        call
    }
}

impl Response {
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// Whether a `Content-Type` is that of server-sent events.
pub fn is_event_stream(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3); `None` for the date form.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    seconds(headers.get(RETRY_AFTER)?.to_str().ok()?)
}

/// Parses the value of a `Retry-After` header.
pub fn seconds(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Sends the request and reads the whole response.
pub async fn exchange(mut call: Call) -> Result<Response, ExchangeError> {
    let (time, mut span) = (call.time, call.span.take());
    let exchanged = tokio::time::timeout(time, unlimited(call)).await;
    let exchanged = exchanged.unwrap_or(Err(ExchangeError::TimedOut));
    if let Some(span) = &mut span {
        span.record(|span| match &exchanged {
            Ok(response) => {
                let status = response.status;
                span.set("http.response.status_code", i64::from(status.as_u16()));
                if status.is_client_error() || status.is_server_error() {
                    span.fail(status.as_u16().to_string());
                }
            }
            Err(error) => span.fail(error.kind()),
        });
    }
    exchanged
}

impl ExchangeError {
    /// The value of the span attribute `error.type`.
    fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Local(_) => "local",
            Self::Broken(_) => "reset",
            Self::TimedOut => "timeout",
            Self::TooLarge => "too_large",
        }
    }
}

async fn unlimited(call: Call) -> Result<Response, ExchangeError> {
    let Call { method, url, peer, time, headers, body, span: _ } = call;
    let request = match peer {
        None => CLIENT.with(|client| client.request(method, url)),
        // awc sees a URL without TLS: its own TLS would verify the host of the URL, not the name of the service.
        Some(peer) => tls_client(peer).request(method, url.replacen("https://", "http://", 1)),
    };
    let mut request = request.timeout(time).no_decompress();
    for (name, value) in headers {
        request = request.insert_header((name, value));
    }
    let sent = match body {
        Some(body) => request.send_body(body).await,
        None => request.send().await,
    };
    let mut response = sent.map_err(classify)?;
    match response.body().limit(RESPONSE_LIMIT).await {
        Ok(body) => Ok(Response { status: response.status(), headers: response.headers().clone(), body }),
        Err(PayloadError::Overflow) => Err(ExchangeError::TooLarge),
        Err(error) => Err(ExchangeError::Broken(error.to_string())),
    }
}

/// Whether a connection that could not be made says something about the peer. Anything else is a want on this
/// side: of descriptors, of ports, or of an address for the name.
pub fn blames_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, TimedOut};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | TimedOut)
}

fn classify(error: SendRequestError) -> ExchangeError {
    match error {
        SendRequestError::Connect(ConnectError::Disconnected) => ExchangeError::Broken(error.to_string()),
        SendRequestError::Connect(ConnectError::Timeout) => ExchangeError::Unreachable(error.to_string()),
        SendRequestError::Connect(ConnectError::Io(cause)) if blames_peer(&cause) => {
            ExchangeError::Unreachable(cause.to_string())
        }
        SendRequestError::Connect(_) | SendRequestError::Url(_) | SendRequestError::Http(_) => {
            ExchangeError::Local(error.to_string())
        }
        SendRequestError::Timeout => ExchangeError::TimedOut,
        _ => ExchangeError::Broken(error.to_string()),
    }
}

/// Looks names up in a time of its own: a slow name server is no unreachable replica.
struct Lookup;

impl Resolve for Lookup {
    fn lookup<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> LocalBoxFuture<'a, Result<Vec<SocketAddr>, Box<dyn std::error::Error>>> {
        Box::pin(async move {
            let found = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await??;
            Ok(found.collect())
        })
    }
}

fn tls_client(peer: PeerTls) -> awc::Client {
    TLS_CLIENTS.with_borrow_mut(|clients| {
        if let Some((_, client)) = clients.iter().find(|(known, _)| *known == peer) {
            return client.clone();
        }
        let client = client(Some(peer.clone()));
        clients.push((peer, client.clone()));
        client
    })
}

fn client(peer: Option<PeerTls>) -> awc::Client {
    let tcp = Connector::new(Resolver::custom(Lookup)).service();
    let connect = fn_service::<_, _, _, _, _, ()>(move |to: ConnectInfo<Uri>| {
        let (connecting, peer) = (tcp.call(to), peer.clone());
        async move {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            let connected =
                connected.unwrap_or_else(|_| Err(TcpError::Io(io::ErrorKind::TimedOut.into())))?;
            let (stream, uri) = connected.into_parts();
            if let Err(error) = stream.set_nodelay(true) {
                log::debug!(error:%; "TCP_NODELAY cannot be set");
            }
            let stream = match peer {
                Some(peer) => peer.connect(stream).await.map_err(TcpError::Io)?,
                None => Stream::Plain(stream),
            };
            Ok::<_, TcpError>(Connection::new(uri, stream))
        }
    });
    let connector = awc::Connector::new()
        .connector(connect)
        .timeout(CONNECT_TIMEOUT + tls::HANDSHAKE_TIMEOUT)
        .conn_keep_alive(IDLE_TIMEOUT)
        .limit(1024);
    awc::Client::builder().connector(connector).disable_redirects().finish()
}
