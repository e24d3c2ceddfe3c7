//! One HTTP exchange with one address, on awc.
//!
//! awc's clients belong to a thread, so each thread has one. Its defaults are changed where they
//! surprise: no redirects, no decompression, no Nagle's algorithm (which together with delayed
//! acknowledgements costs 40 ms), and idle connections are given up before servers would.

use std::time::Duration;

use actix_service::ServiceExt as _;
use actix_tls::connect::{Connection, ConnectorService};
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use actix_web::http::{Method, StatusCode, Uri};
use actix_web::web::Bytes;
use awc::error::{ConnectError, PayloadError, SendRequestError};
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// The header of a key by which the callee notices a repeated request
/// (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Time to make a connection.
const CONNECT: Duration = Duration::from_millis(500);
/// Idle connections are kept so long; servers keep theirs 75 s.
const IDLE: Duration = Duration::from_secs(30);
/// The largest answer, in bytes.
const ANSWER_LIMIT: usize = 2 * 1024 * 1024;

thread_local! {
    static CLIENT: awc::Client = client();
}

/// A request to one address.
#[derive(Debug)]
pub struct Call {
    method: Method,
    url: String,
    time: Duration,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
}

/// A complete answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No connection could be made: nothing was sent.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The time was over.
    #[error("no answer in time")]
    TimedOut,
    /// The answer is larger than 2 MiB.
    #[error("the answer is too large")]
    TooLarge,
}

impl Call {
    /// A call that may take `time` in all.
    pub fn new(method: Method, url: String, time: Duration) -> Self {
        Self { method, url, time, headers: Vec::new(), body: None }
    }

    /// Sends a header.
    pub fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Shows this token.
    pub fn bearer(self, token: String) -> Self {
        self.header(AUTHORIZATION.as_str(), format!("Bearer {token}"))
    }

    /// Sends this JSON.
    pub fn json(self, body: String) -> Self {
        self.body("application/json", body)
    }

    /// Sends a body of this type.
    pub fn body(self, content_type: &'static str, body: String) -> Self {
        let mut call = self.header(CONTENT_TYPE.as_str(), content_type.to_owned());
        call.body = Some(body);
        call
    }
}

impl Response {
    /// The body, read as JSON.
    ///
    /// # Errors
    /// When it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// What `Retry-After` says in one of its two forms: seconds, no date (RFC 9110 §10.2.3).
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    seconds(headers.get(RETRY_AFTER)?.to_str().ok()?)
}

/// The value of a `Retry-After` header.
pub fn seconds(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Makes the call, reading the whole answer.
///
/// # Errors
/// Any [`ExchangeError`].
pub async fn exchange(call: Call) -> Result<Response, ExchangeError> {
    let time = call.time;
    match tokio::time::timeout(time, unlimited(call)).await {
        Ok(exchanged) => exchanged,
        Err(_) => Err(ExchangeError::TimedOut),
    }
}

async fn unlimited(call: Call) -> Result<Response, ExchangeError> {
    let Call { method, url, time, headers, body } = call;
    let mut request = CLIENT.with(|client| client.request(method, url)).timeout(time).no_decompress();
    for (name, value) in headers {
        request = request.insert_header((name, value));
    }
    let sent = match body {
        Some(body) => request.send_body(body).await,
        None => request.send().await,
    };
    let mut response = sent.map_err(classify)?;
    match response.body().limit(ANSWER_LIMIT).await {
        Ok(body) => Ok(Response { status: response.status(), headers: response.headers().clone(), body }),
        Err(PayloadError::Overflow) => Err(ExchangeError::TooLarge),
        Err(error) => Err(ExchangeError::Broken(error.to_string())),
    }
}

fn classify(error: SendRequestError) -> ExchangeError {
    match error {
        SendRequestError::Connect(ConnectError::Disconnected) => ExchangeError::Broken(error.to_string()),
        SendRequestError::Connect(_) | SendRequestError::Url(_) | SendRequestError::Http(_) => {
            ExchangeError::Unreachable(error.to_string())
        }
        SendRequestError::Timeout => ExchangeError::TimedOut,
        _ => ExchangeError::Broken(error.to_string()),
    }
}

fn client() -> awc::Client {
    let tcp = ConnectorService::default().map(|connection: Connection<Uri, TcpStream>| {
        if let Err(error) = connection.io_ref().set_nodelay(true) {
            log::debug!(error:%; "TCP_NODELAY cannot be set");
        }
        connection
    });
    let connector = awc::Connector::new().connector(tcp).timeout(CONNECT).conn_keep_alive(IDLE).limit(1024);
    awc::Client::builder().connector(connector).disable_redirects().finish()
}
