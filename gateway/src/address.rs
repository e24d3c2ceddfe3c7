//! Addresses of clients.

use std::net::IpAddr;

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
