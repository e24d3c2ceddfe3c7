//! `POST /v1/traces`, `POST /v1/logs`: OTLP over HTTP, as protobuf or as JSON. On a port of its own, without tokens:
//! every program that reaches it may send. It answers no reads.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use actix_web::web::{BytesMut, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::StreamExt as _;
use shared::problem::Problem;
use shared::service::resource;

use super::hosts;
use crate::error::Error;
use crate::tasks::writer::{Arrival, Arrivals};
use crate::views::otlp::{self, Encoding};

/// Bytes of one request. An empty span has two bytes in protobuf, and a hundred times as many in memory.
pub const BODY_LIMIT: usize = 512 * 1024;

/// How long a body may take. It holds one of a few places, and any program that reaches the port may send.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

pub fn configure(app: &mut ServiceConfig) {
    app.service(resource("/v1/traces").post(receive_traces)).service(resource("/v1/logs").post(receive_logs));
}

async fn receive_traces(
    request: HttpRequest,
    body: Payload,
    arrivals: Data<Arrivals>,
) -> Result<HttpResponse, Error> {
    receive(request, body, arrivals, |encoding, body| otlp::spans(encoding, body).map(Arrival::Spans)).await
}

async fn receive_logs(
    request: HttpRequest,
    body: Payload,
    arrivals: Data<Arrivals>,
) -> Result<HttpResponse, Error> {
    receive(request, body, arrivals, |encoding, body| otlp::logs(encoding, body).map(Arrival::Logs)).await
}

async fn receive(
    request: HttpRequest,
    body: Payload,
    arrivals: Data<Arrivals>,
    parse: fn(Encoding, &[u8]) -> Result<Arrival, String>,
) -> Result<HttpResponse, Error> {
    hosts::check(&request)?;
    let encoding = encoding(request.headers())
        .ok_or_else(|| Error::from(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)))?;
    let _place = arrivals.begin()?;
    let body = tokio::time::timeout(READ_TIMEOUT, read(body)).await;
    let body = body.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))??;
    arrivals.put(parse(encoding, &body).map_err(Error::NotOtlp)?)?;
    Ok(HttpResponse::Ok().content_type(encoding.content_type()).body(encoding.accepted()))
}

async fn read(mut body: Payload) -> Result<BytesMut, Error> {
    let mut bytes = BytesMut::new();
    while let Some(part) = body.next().await {
        let part = part.map_err(|_| Problem::malformed("The body broke off."))?;
        if bytes.len() + part.len() > BODY_LIMIT {
            return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE).into());
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// `None` for what is neither protobuf nor JSON, or compressed.
fn encoding(headers: &HeaderMap) -> Option<Encoding> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_plain = text(CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
    let content_type = text(CONTENT_TYPE)?.split(';').next().unwrap_or_default().trim();
    let is_named = |encoding: &Encoding| content_type.eq_ignore_ascii_case(encoding.content_type());
    Encoding::ALL.into_iter().find(is_named).filter(|_| is_plain)
}
