//! The client's network address, by which failed logins are counted.

use actix_web::HttpRequest;

/// The address that the gateway found, which accepts this header from no client; else the peer's.
pub(super) fn client_address(request: &HttpRequest) -> String {
    let found = request.headers().get("x-real-ip").and_then(|value| value.to_str().ok());
    found
        .map(str::to_owned)
        .or_else(|| request.peer_addr().map(|peer| peer.ip().to_string()))
        .unwrap_or_default()
}
