//! Sends a response: the head, then the body as the client takes it.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::task::{Poll, ready};
use std::time::SystemTime;

use ::http::Response;
use ::http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, HeaderValue};
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::StatusCode;
use actix_web::http::header::{HttpDate, TryIntoHeaderValue as _};
use actix_web::web::Bytes;
use actix_web::{HttpResponse, ResponseError as _};
use h2::Reason;
use h2::server::SendResponse;

use super::Ended;
use super::backlog::Backlog;
use crate::problem::{PROBLEM_JSON, Problem};
use crate::service::connection::pace::Pace;
use crate::service::connection::refusal;

/// Responds to a request that actix never sees.
pub(super) fn refuse(problem: &Problem, service: &str, peer: IpAddr, mut respond: SendResponse<Bytes>) {
    let (id, document) = refusal::document(problem, service, peer);
    let mut head = Response::new(());
    set_status(&mut head, problem.status());
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    for (name, value) in problem.error_response().headers() {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_ref()), HeaderValue::from_bytes(value.as_bytes()))
        {
            head.headers_mut().append(name, value);
        }
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        head.headers_mut().insert("x-request-id", id);
    }
    let _ = respond.send_response(head, false).and_then(|mut body| body.send_data(document.into(), true));
}

/// `is_head`: the response to a HEAD has no body.
pub(super) async fn send(
    response: HttpResponse<impl MessageBody>,
    mut respond: SendResponse<Bytes>,
    is_head: bool,
    mut sending: Pace,
    backlog: &Backlog,
) -> Ended {
    let (response, body) = response.into_parts();
    let size = body.size();
    let is_whole = is_head || size.is_eof();
    let Ok(mut stream) = respond.send_response(head(&response, size), is_whole) else { return Ended::Reset };
    if is_whole {
        return Ended::Answered;
    }
    let (mut body, mut unsent) = (pin!(body), Bytes::new());
    let sent = poll_fn(|cx| {
        if stream.poll_reset(cx).is_ready() {
            return Poll::Ready(Sent::Reset);
        }
        loop {
            while !unsent.is_empty() {
                stream.reserve_capacity(unsent.len());
                // `poll_capacity` speaks of new capacity only.
                let capacity = match stream.capacity() {
                    0 => match stream.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(capacity))) => capacity,
                        Poll::Ready(_) => return Poll::Ready(Sent::Reset),
                        Poll::Pending => return sending.poll_late(cx).map(|()| Sent::Late),
                    },
                    capacity => capacity,
                };
                ready!(backlog.poll_room(cx));
                let part = unsent.split_to(capacity.min(unsent.len()));
                sending.moved(part.len());
                backlog.add(part.len());
                if stream.send_data(part, false).is_err() {
                    return Poll::Ready(Sent::Reset);
                }
            }
            match ready!(body.as_mut().poll_next(cx)) {
                Some(Ok(part)) => unsent = part,
                Some(Err(_)) => return Poll::Ready(Sent::Broken),
                None => return Poll::Ready(Sent::Whole),
            }
        }
    });
    match sent.await {
        Sent::Whole if stream.send_data(Bytes::new(), true).is_ok() => Ended::Answered,
        Sent::Whole | Sent::Reset => Ended::Reset,
        Sent::Late => {
            stream.send_reset(Reason::CANCEL);
            Ended::TooSlow
        }
        Sent::Broken => {
            // A reset discards what was not sent. The connection sends that first.
            tokio::task::yield_now().await;
            stream.send_reset(Reason::INTERNAL_ERROR);
            Ended::Answered
        }
    }
}

enum Sent {
    Whole,
    /// The client reset the stream.
    Reset,
    /// The client takes less than the minimum rate.
    Late,
    /// The body has failed.
    Broken,
}

fn head(response: &HttpResponse<()>, size: BodySize) -> Response<()> {
    let mut head = Response::new(());
    set_status(&mut head, response.status());
    let headers = head.headers_mut();
    for (name, value) in response.headers() {
        let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_ref()), HeaderValue::from_bytes(value.as_bytes()))
        else {
            continue;
        };
        if !is_of_http1(name.as_str()) {
            headers.append(name, value);
        }
    }
    if let BodySize::Sized(length) = size {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    if !headers.contains_key(DATE)
        && let Ok(now) = HttpDate::from(SystemTime::now()).try_into_value()
        && let Ok(now) = HeaderValue::from_bytes(now.as_bytes())
    {
        headers.insert(DATE, now);
    }
    head
}

/// Headers of an HTTP/1.1 connection (RFC 9113 §8.2.2), and the length, which is that of the body.
fn is_of_http1(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "content-length"
    )
}

fn set_status(head: &mut Response<()>, status: StatusCode) {
    *head.status_mut() = ::http::StatusCode::from_u16(status.as_u16()).unwrap_or_default();
}
