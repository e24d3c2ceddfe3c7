//! The data path's engine: one request to one replica, streamed both ways.
//!
//! Everything above it speaks of replicas, retries and time; everything below of connections and bytes.

mod body; // the answer's body, as it comes
mod h1; // HTTP/1.1 on our own connections
mod pool; // idle connections, per thread
mod sending; // the request, as it is sent
mod wire; // writing and reading HTTP/1.1

pub use body::ResponseBody;
pub use h1::Engine;

use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Payload};

/// A request as it goes to a replica.
pub struct Request {
    /// The head, as it is written: request line and headers, each with its line end, without the
    /// empty line and without those that tell the length of the body.
    pub head: Vec<u8>,
    /// The body.
    pub body: Body,
    /// Whether the answer has no body whatever its head says.
    pub is_head: bool,
    /// How long to wait for the head of the answer after the last byte sent.
    pub head_timeout: Duration,
    /// When all must be over; streams of events have no end.
    pub end: Instant,
}

/// The body of a request.
pub enum Body {
    /// There is none.
    None,
    /// It is here, and can be sent again.
    Kept(Bytes),
    /// It streams from the client, with its length if the client told it.
    Streaming(Payload, Option<u64>),
    /// It was streamed.
    Gone,
}

/// The head of an answer, and its body as it comes.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers, as they came.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: ResponseBody,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection could be made: nothing was sent.
    #[error("no connection: {0}")]
    Unreachable(std::io::Error),
    /// A connection kept from earlier turned out to be closed: that tells nothing about the replica.
    #[error("a kept connection was closed")]
    Stale,
    /// The connection broke before the answer.
    #[error("the connection broke: {0}")]
    Reset(std::io::Error),
    /// What came is no HTTP.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
    /// The head of the answer did not come in time.
    #[error("no answer in time")]
    TimedOut,
    /// The client sends its body too slowly.
    #[error("the client's body did not come in time")]
    SlowClient,
    /// The client went away, or sent a body that is none.
    #[error("the client's body broke: {0}")]
    Client(actix_web::error::PayloadError),
}
