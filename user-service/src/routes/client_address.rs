//! The client's network, by which failed logins are counted.

use std::net::IpAddr;

use actix_web::HttpRequest;
use shared::service::network;

/// The address that the gateway found, which accepts this header from no client; else the peer's. With IPv6, its
/// network of 64 bits: a client has all of its addresses.
pub(super) fn client_address(request: &HttpRequest) -> String {
    let found = request.headers().get("x-real-ip").and_then(|value| value.to_str().ok()?.parse().ok());
    let address: Option<IpAddr> = found.or_else(|| request.peer_addr().map(|peer| peer.ip()));
    address.map(|address| network(address).to_string()).unwrap_or_default()
}
