//! `POST /v1/traces`, `POST /v1/logs`: OTLP over HTTP, in JSON. On a port of its own, without tokens: every
//! program that reaches it may send. It answers no reads.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use actix_web::web::{BytesMut, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::StreamExt as _;
use serde_json::json;
use shared::problem::Problem;
use shared::service::resource;

use super::hosts;
use crate::error::Error;
use crate::tasks::writer::{Arrival, Arrivals};
use crate::views::otlp;

/// Bytes of one request.
pub const BODY_LIMIT: usize = 4 * 1024 * 1024;

pub fn configure(app: &mut ServiceConfig) {
    app.service(resource("/v1/traces").post(receive_traces)).service(resource("/v1/logs").post(receive_logs));
}

async fn receive_traces(
    request: HttpRequest,
    body: Payload,
    arrivals: Data<Arrivals>,
) -> Result<HttpResponse, Error> {
    receive(request, body, arrivals, |body| otlp::spans(body).map(Arrival::Spans)).await
}

async fn receive_logs(
    request: HttpRequest,
    body: Payload,
    arrivals: Data<Arrivals>,
) -> Result<HttpResponse, Error> {
    receive(request, body, arrivals, |body| otlp::logs(body).map(Arrival::Logs)).await
}

async fn receive(
    request: HttpRequest,
    body: Payload,
    arrivals: Data<Arrivals>,
    parse: fn(&[u8]) -> Result<Arrival, String>,
) -> Result<HttpResponse, Error> {
    let _place = arrivals.begin()?;
    let body = read(&request, body).await?;
    arrivals.put(parse(&body).map_err(Error::NotOtlp)?)?;
    Ok(HttpResponse::Ok().json(json!({})))
}

async fn read(request: &HttpRequest, mut body: Payload) -> Result<BytesMut, Error> {
    hosts::check(request)?;
    if !is_plain_json(request.headers()) {
        return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE).into());
    }
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

fn is_plain_json(headers: &HeaderMap) -> bool {
    let text = |value: &actix_web::http::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let kind = headers.get(CONTENT_TYPE).map(text).unwrap_or_default();
    let encoding = headers.get(CONTENT_ENCODING).map(text);
    kind.starts_with("application/json") && encoding.is_none_or(|encoding| encoding == "identity")
}
