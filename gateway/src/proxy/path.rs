//! Refuses ambiguous requests, because the gateway and a service could read them differently. The connection
//! ([`shared::service`]) has already refused requests whose end is ambiguous.

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode, header};
use shared::problem::Problem;
use shared::request::connection_options;

use crate::routing::path::is_plain;

/// The longest path with query, in bytes.
const MAX_TARGET: usize = 8 * 1024;
const MAX_CONNECTION_OPTIONS: usize = 10;

/// The path of `request`; 400 if the request is ambiguous, 414 if the path is too long.
pub fn checked(request: &HttpRequest) -> Result<&str, Problem> {
    let uri = request.uri();
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > MAX_TARGET {
        return Err(Problem::of_status(StatusCode::URI_TOO_LONG));
    }
    if request.method() == Method::CONNECT {
        return Err(ambiguous("CONNECT asks for a tunnel, and there is none."));
    }
    let headers = request.headers();
    if connection_names_end_to_end_header(headers) {
        return Err(ambiguous("Connection names a header that is not of this connection."));
    }
    if connection_options(headers).count() > MAX_CONNECTION_OPTIONS {
        return Err(ambiguous("Connection names too many headers."));
    }
    // Some frameworks read `x_user` and `x-user` as the same header.
    if headers.keys().any(|name| name.as_str().contains('_')) {
        return Err(ambiguous("The name of a header has an underscore."));
    }
    if let (Some(authority), Some(host)) = (uri.authority(), headers.get(header::HOST))
        && !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())
    {
        return Err(ambiguous("The address and the Host header differ."));
    }
    let path = uri.path();
    if is_plain(path) { Ok(path) } else { Err(ambiguous("The path can be read in two ways.")) }
}

/// Whether `Connection` would drop a header that a service or the gateway depends on.
fn connection_names_end_to_end_header(headers: &HeaderMap) -> bool {
    const END_TO_END: [&str; 5] =
        ["host", "authorization", "idempotency-key", "x-request-id", "content-type"];
    connection_options(headers)
        .any(|name| END_TO_END.iter().any(|header| name.eq_ignore_ascii_case(header.as_bytes())))
}

fn ambiguous(detail: &str) -> Problem {
    Problem::malformed(detail)
}
