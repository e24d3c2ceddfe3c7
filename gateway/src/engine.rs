//! The HTTP engine: sends one request to one replica, and streams both bodies.
//!
//! The proxy above it handles replicas, retries and deadlines; the engine handles connections and bytes.

mod body; // streams the response body
mod frames; // finds the ends of WebSocket frames
mod h1; // HTTP/1.1 exchanges
mod pool; // idle connections of a thread
mod sending; // sends the request
mod tunnel; // a connection after a 101
mod wire; // parses HTTP/1.1

pub use body::ResponseBody;
pub use h1::Engine;
pub use tunnel::{Ended, Outcome, Tunnel, TunnelLimits};
pub use wire::Headers;

use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Payload};
use shared::http::seconds;
use shared::service::Exchange;

/// A request to a replica.
pub struct Request {
    /// Request line and headers as bytes, each line with its line end. The engine adds the headers for the body's
    /// length and the final empty line.
    pub head: Vec<u8>,
    pub body: Body,
    /// The replica may answer with 101, and then speak WebSocket.
    pub is_upgrade: bool,
    /// A response to HEAD has no body, even with `Content-Length`.
    pub is_head: bool,
    /// The client waits for a 100 before it sends the body, so the replica decides about a body that streams.
    pub awaits_continue: bool,
    /// Longest time without a byte sent or received, until the head of the response is complete.
    pub head_timeout: Duration,
    /// The client's connection, for informational responses; `None` for HTTP/1.0, which has no such responses.
    pub client: Option<Rc<Exchange>>,
    /// End of the time for sending the body.
    pub upload_end: Instant,
    /// Deadline of the whole exchange. Event streams (`text/event-stream`) may exceed it.
    pub end: Instant,
}

/// The body of a request.
pub enum Body {
    None,
    /// Buffered, so that it can be sent again.
    Kept(Bytes),
    /// Streams from the client; with its length, or chunked.
    Streaming(Payload, Option<u64>),
    /// The stream was consumed by an earlier attempt.
    Gone,
}

impl Body {
    pub fn is_streamed(&self) -> bool {
        matches!(self, Self::Streaming(..))
    }
}

/// A response: its head, and its body as a stream.
pub struct Response {
    pub status: StatusCode,
    /// As received, hop-by-hop headers included.
    pub headers: Headers,
    pub is_event_stream: bool,
    pub body: ResponseBody,
}

impl Response {
    /// The value of `Retry-After`, if the response is not successful.
    pub fn retry_after(&self) -> Option<Duration> {
        if self.status.is_success() {
            return None;
        }
        seconds(self.headers.get("retry-after")?)
    }
}

/// Why there is no response, or only a part of it.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection was made; nothing was sent.
    #[error("no connection: {0}")]
    Unreachable(std::io::Error),
    /// No connection, because of a failure on this side: no free descriptor or port, or the name has no address.
    #[error("no connection can be made here: {0}")]
    Local(std::io::Error),
    /// The server had closed the idle connection. This says nothing about the replica's health.
    #[error("a kept connection was closed")]
    Stale,
    /// The server closed a reused connection without a response, but too late for [`UpstreamError::Stale`]: it had the
    /// request, and probably crashed.
    #[error("a kept connection was closed instead of a response")]
    Unanswered,
    /// The connection broke before the response was complete.
    #[error("the connection broke: {0}")]
    Reset(std::io::Error),
    /// The response is not valid HTTP.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
    /// The response did not arrive in time. Holds the time that the gateway waited: since the last byte was sent, or, in
    /// the body of the response, since the last byte was received.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The client sent its body too slowly.
    #[error("the client's body did not come in time")]
    SlowClient,
    /// The client disconnected, or sent a malformed body.
    #[error("the client's body broke: {0}")]
    Client(actix_web::error::PayloadError),
}
