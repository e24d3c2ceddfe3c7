//! Addresses of clients.

use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header;
use shared::service::Scheme;

use crate::routing::Table;

/// The client's address: the last address that is not a trusted proxy, in the list of `X-Forwarded-For` and then the
/// connection's peer. If all are trusted, the first of the list.
pub fn client_address(request: &HttpRequest, table: &Table) -> IpAddr {
    let mut client = peer_address(request);
    if !table.is_trusted(&client) {
        return client;
    }
    let lists =
        request.headers().get_all(header::X_FORWARDED_FOR).map(|value| value.to_str().unwrap_or_default());
    let addresses: Vec<&str> = lists.flat_map(|list| list.split(',')).collect();
    // Read from right to left: the client may have forged the addresses to the left of the first untrusted one.
    for address in addresses.into_iter().rev().map_while(parse) {
        client = address;
        if !table.is_trusted(&client) {
            break;
        }
    }
    client
}

/// An address, perhaps with a port, as some proxies write it: `192.0.2.1:5678`, `[2001:db8::1]:5678`.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse().ok().or_else(with_port).or_else(in_brackets);
    address.map(|address: IpAddr| address.to_canonical())
}

/// The address at the other end of the connection. On a socket of both families, an IPv4 client has a mapped address:
/// here it is the same client as on a socket of IPv4.
pub fn peer_address(request: &HttpRequest) -> IpAddr {
    request.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip().to_canonical())
}

/// The scheme with which the client came: what a trusted proxy says, or else that of the connection.
pub fn scheme(request: &HttpRequest, table: &Table) -> Scheme {
    let is_trusted = table.is_trusted(&peer_address(request));
    let said = request.headers().get(header::X_FORWARDED_PROTO).filter(|_| is_trusted);
    let said = said.and_then(|said| said.to_str().ok()).unwrap_or_default();
    let said = said.split(',').next().unwrap_or_default().trim();
    let is = |names: [&str; 2]| names.iter().any(|name| said.eq_ignore_ascii_case(name));
    if is(["https", "wss"]) {
        Scheme::Https
    } else if is(["http", "ws"]) {
        Scheme::Http
    } else {
        Scheme::of(request)
    }
}

/// `Host`. `X-Forwarded-Host` does not count: many proxies pass on what the client sent.
pub fn host(request: &HttpRequest) -> Option<&str> {
    request.headers().get(header::HOST)?.to_str().ok()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use actix_web::test::TestRequest;
    use shared::balancer::{Pool, Settings};

    use super::*;
    use crate::routing::ServiceLimits;

    /// Trusts 10.0.0.0/8, fd00::/8 and 172.16.0.0/12.
    fn table() -> Table {
        let text = "trusted_proxies = [\"10.0.0.0/8\", \"fd00::/8\", \"::ffff:172.16.0.0/108\"]\n[[routes]]\nid = \"a\"\nprefix = \"/a\"\nservice = \"a\"\n";
        let limits = Arc::new(ServiceLimits::new(Instant::now()));
        Table::read(text, |service| Pool::new(service, Settings::default()), |_| limits.clone()).unwrap()
    }

    fn from(peer: &str, name: &str, value: &str) -> HttpRequest {
        let request = TestRequest::default().peer_addr(peer.parse().unwrap());
        request.insert_header((name, value)).to_http_request()
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_a_trusted_proxy() {
        for (peer, list, client) in [
            ("192.0.2.1:1", "192.0.2.9", "192.0.2.1"),
            ("10.0.0.1:1", "", "10.0.0.1"),
            ("10.0.0.1:1", "192.0.2.8, 192.0.2.9", "192.0.2.9"),
            ("10.0.0.1:1", "192.0.2.8, 192.0.2.9, 10.0.0.2", "192.0.2.9"),
            ("10.0.0.1:1", "192.0.2.9:5678", "192.0.2.9"),
            ("10.0.0.1:1", "192.0.2.9, [fd00::1]:1", "192.0.2.9"),
            ("10.0.0.1:1", "[2001:db8::1]", "2001:db8::1"),
            ("10.0.0.1:1", "192.0.2.9, unknown", "10.0.0.1"),
            ("10.0.0.1:1", "unknown, 10.0.0.2", "10.0.0.2"),
            // A client of the private network itself.
            ("10.0.0.1:1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ] {
            let found = client_address(&from(peer, "x-forwarded-for", list), &table());
            assert_eq!(found.to_string(), client, "{peer} {list}");
        }
    }

    #[test]
    fn a_client_of_ipv4_is_the_same_on_a_socket_of_both_families() {
        for (peer, list, client) in [
            ("[::ffff:10.0.0.1]:1", "192.0.2.9", "192.0.2.9"),
            ("[::ffff:10.0.0.1]:1", "::ffff:192.0.2.9, ::ffff:10.0.0.2", "192.0.2.9"),
            ("[::ffff:192.0.2.1]:1", "192.0.2.9", "192.0.2.1"),
        ] {
            let found = client_address(&from(peer, "x-forwarded-for", list), &table());
            assert_eq!(found.to_string(), client, "{peer} {list}");
        }
        assert!(table().is_trusted(&"::ffff:10.0.0.1".parse().unwrap()), "its connections have no limit");
        assert!(table().is_trusted(&"172.16.0.1".parse().unwrap()), "its network is written as a mapped one");
    }

    #[test]
    fn only_a_trusted_proxy_says_how_the_client_came() {
        for (peer, said, expected) in [
            ("10.0.0.1:1", "https", Scheme::Https),
            ("10.0.0.1:1", "HTTPS, http", Scheme::Https),
            ("10.0.0.1:1", "wss", Scheme::Https),
            ("10.0.0.1:1", "http", Scheme::Http),
            ("10.0.0.1:1", "gopher", Scheme::Http),
            ("[::ffff:10.0.0.1]:1", "https", Scheme::Https),
            ("192.0.2.1:1", "https", Scheme::Http),
        ] {
            assert_eq!(scheme(&from(peer, "x-forwarded-proto", said), &table()), expected, "{peer} {said}");
        }
    }
}
