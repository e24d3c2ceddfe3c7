//! Addresses of clients.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header;

use crate::routing::Table;

/// The client's address: the last address that is not a trusted proxy, in the list of `X-Forwarded-For` and then the
/// connection's peer.
pub fn client_address(request: &HttpRequest, table: &Table) -> IpAddr {
    let peer = peer_address(request);
    if !table.is_trusted(&peer) {
        return peer;
    }
    let lists =
        request.headers().get_all(header::X_FORWARDED_FOR).map(|value| value.to_str().unwrap_or_default());
    let addresses: Vec<&str> = lists.flat_map(|list| list.split(',')).collect();
    // Read from right to left: the client may have forged the addresses to the left of the first untrusted one.
    let mut addresses = addresses.into_iter().rev().map_while(|text| text.trim().parse().ok());
    addresses.find(|address| !table.is_trusted(address)).unwrap_or(peer)
}

/// The address at the other end of the connection.
pub fn peer_address(request: &HttpRequest) -> IpAddr {
    request.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip())
}

/// Whether the address is of this machine or of a private network. A proxy in front of the gateway has such an address.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

/// An address as text. `to_string` takes ten times as long.
pub fn text_of(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let (mut text, mut digits) = (String::with_capacity(15), itoa::Buffer::new());
    for octet in address.octets() {
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(digits.format(octet));
    }
    text
}
