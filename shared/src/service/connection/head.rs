//! Judges the head of a request before actix sees it (RFC 9112). The parser is the one that actix uses, and the
//! rules are stricter: a request that two programs may understand differently is refused.

use std::mem::MaybeUninit;
use std::ops::Range;

use actix_web::http::{Method, StatusCode, Uri};

use super::body::{Chunks, Framing};
use crate::problem::Problem;

/// actix takes no more.
pub(super) const MAX_HEADERS: usize = 96;

pub(super) enum Verdict {
    /// More bytes are needed.
    Incomplete,
    Whole(Head),
    Refused(Problem),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The length in bytes.
    pub(super) length: usize,
    pub(super) framing: Framing,
    /// The line that says so, without its end: `Content-Length` or `Transfer-Encoding`. Empty without a body.
    pub(super) announcement: Range<usize>,
    /// The connection closes after the response.
    pub(super) is_last: bool,
}

/// Whether the head may end in `bytes[from..]`.
pub(super) fn ends_after(bytes: &[u8], from: usize) -> bool {
    let new = &bytes[from.saturating_sub(3)..];
    let is_empty_line = |at: usize| matches!(&new[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]);
    new.iter().enumerate().any(|(at, byte)| *byte == b'\n' && is_empty_line(at))
}

pub(super) fn judge(bytes: &[u8]) -> Verdict {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Verdict::Incomplete,
        Err(httparse::Error::TooManyHeaders) => {
            return Verdict::Refused(Problem::of_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        }
        Err(_) => return refused("The request is not HTTP/1.1."),
    };
    match read(&request) {
        Ok((framing, is_last)) => {
            let announcement = match framing {
                Framing::None => 0..0,
                Framing::Length(_) => line(&bytes[..length], "content-length"),
                Framing::Chunked(_) => line(&bytes[..length], "transfer-encoding"),
            };
            Verdict::Whole(Head { length, framing, announcement, is_last })
        }
        Err(why) => refused(why),
    }
}

/// Where the line of the field `name` is in a head that has one, without the end of the line.
fn line(head: &[u8], name: &str) -> Range<usize> {
    let mut at = 0;
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let end = at + line.len();
        if line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name.as_bytes()) {
            return at..at + line.trim_ascii_end().len();
        }
        at = end;
    }
    0..0
}

fn refused(detail: &str) -> Verdict {
    Verdict::Refused(Problem::malformed(detail))
}

fn read(request: &httparse::Request<'_, '_>) -> Result<(Framing, bool), &'static str> {
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let is_old = request.version == Some(0);
    if Method::from_bytes(method.as_bytes()).is_err() || !is_target(target) {
        return Err("The request line is malformed.");
    }
    let (mut length, mut is_chunked, mut host) = (None, false, None);
    let (mut closes, mut keeps_alive, mut is_tunnel) = (false, false, method == "CONNECT");
    for field in request.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            4 if is("host") => {
                let other = host.replace(field.value);
                if other.is_some() {
                    return Err("There is more than one Host header.");
                }
            }
            7 if is("upgrade") => is_tunnel |= field.value.trim_ascii().eq_ignore_ascii_case(b"websocket"),
            10 if is("connection") => {
                for option in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    // After a request to change the protocol, actix closes the connection too.
                    closes |=
                        option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"upgrade");
                    keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is("content-length") => {
                let other = length.replace(number(field.value).ok_or("Content-Length is malformed.")?);
                if other.is_some() {
                    return Err("There is more than one Content-Length header.");
                }
            }
            17 if is("transfer-encoding") => {
                if is_chunked || is_old || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err("Transfer-Encoding must be chunked, once, over HTTP/1.1.");
                }
                is_chunked = true;
            }
            _ => {}
        }
    }
    if length.is_some() && is_chunked {
        return Err("The length of the body can be read in two ways.");
    }
    // The bytes after an upgrade are not HTTP. With a length, some parsers read them as a body, others as the
    // next request.
    if is_tunnel && (length.is_some() || is_chunked) {
        return Err("A request to change the protocol has no body.");
    }
    match host {
        None if !is_old => return Err("The Host header is missing."),
        Some(host) if !is_host(host) => return Err("The Host header is malformed."),
        _ => {}
    }
    let framing = match length {
        _ if is_chunked => Framing::Chunked(Chunks::default()),
        None if is_old && method == "POST" => return Err("A POST over HTTP/1.0 needs a Content-Length."),
        None | Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
    };
    Ok((framing, is_tunnel || closes || (is_old && !keeps_alive)))
}

/// Whether actix can read the target.
fn is_target(target: &str) -> bool {
    // Most targets need no parser.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._?=&".contains(&byte);
    let is_short = target.starts_with('/') && target.len() < 1024;
    (is_short && target.bytes().all(is_plain)) || Uri::try_from(target).is_ok()
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = Some(value).filter(|value| !value.is_empty() && value.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `name`, `name:port` or `[address]:port` (RFC 9110 §7.2).
pub(super) fn is_host(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let (name, port) = match value.rfind(':') {
        Some(at) if !value[at..].contains(']') => (&value[..at], &value[at + 1..]),
        _ => (value, ""),
    };
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte))
    };
    let is_address = |name: &str| {
        let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
    };
    let is_port = |port: &str| {
        port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
    };
    (is_name(name) || is_address(name)) && is_port(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Option<Head> {
        match judge(text.as_bytes()) {
            Verdict::Whole(head) => Some(head),
            Verdict::Incomplete => panic!("incomplete: {text}"),
            Verdict::Refused(_) => None,
        }
    }

    #[test]
    fn a_head_says_where_its_body_ends_and_whether_another_request_follows() {
        for (text, framing, is_last) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None, false),
            ("GET / HTTP/1.1\nHost: a\n\n", Framing::None, false),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Framing::None, false),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n", Framing::Length(7), false),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Framing::Chunked(Chunks::default()),
                false,
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", Framing::None, true),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, x\r\nUpgrade: h2c\r\n\r\n",
                Framing::None,
                true,
            ),
            ("GET / HTTP/1.0\r\n\r\n", Framing::None, true),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Framing::None, false),
            ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", Framing::None, true),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n",
                Framing::Length(2),
                false,
            ),
        ] {
            let head = head(text).unwrap();
            assert_eq!((head.length, head.framing, head.is_last), (text.len(), framing, is_last), "{text}");
        }
    }

    #[test]
    fn the_line_that_announces_a_body_is_found() {
        for line in ["content-LENGTH: 5\r\n", "Content-Length:5\n", "Transfer-Encoding: chunked\r\n"] {
            for text in [
                format!("POST /Content-Length:6 HTTP/1.1\r\nHost: a\r\n{line}Content-Length-Of: b\r\n\r\n"),
                format!("\r\nPOST / HTTP/1.1\nHost: a\nX: Content-Length:\n{line}\n"),
                format!("POST / HTTP/1.1\r\n{line}Host: a\r\n\r\n"),
            ] {
                assert_eq!(&text[head(&text).unwrap().announcement], line.trim_end(), "{text}");
            }
        }
        assert!(
            head("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap().announcement.is_empty()
        );
    }

    #[test]
    fn a_head_that_can_be_read_in_two_ways_is_refused() {
        for headers in [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
            "Host: a\r\nContent-Length: 5, 5\r\n",
            "Host: a\r\nContent-Length: +5\r\n",
            "Host: a\r\nContent-Length: 0x5\r\n",
            "Host: a\r\nContent-Length:\r\n",
            "Host: a\r\nContent-Length: 99999999999999999999\r\n",
            "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n",
            "Host: a\r\nTransfer-Encoding: identity\r\n",
            "Host: a\r\nUpgrade: websocket\r\nContent-Length: 5\r\n",
            "Host: a\r\n folded: b\r\n",
            "Host: a\r\nspace : b\r\n",
            "Host: a\r\nbare: \rb\r\n",
        ] {
            assert_eq!(head(&format!("POST / HTTP/1.1\r\n{headers}\r\n")), None, "{headers:?}");
        }
        for line in [
            "G T / HTTP/1.1",
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/2.0",
            "GET a b HTTP/1.1",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(head(&format!("{line}\r\nHost: a\r\n\r\n")), None, "{line:?}");
        }
        assert_eq!(head("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), None);
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port_below_65536() {
        for good in ["a", "a.b-c:80", "127.0.0.1:8080", "[::1]", "[::1]:8080", "a:"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in ["", "a b", "a/b", "[::1", "::1", "a:99999", "a:b", "a@b", "a\"b", "a,b", ":80", "a:+80"] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is_split() {
        for whole in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n"] {
            for split in 1..whole.len() {
                assert!(ends_after(whole.as_bytes(), split), "{split}");
                assert!(
                    !ends_after(&whole.as_bytes()[..whole.len() - 1], split.min(whole.len() - 1)),
                    "{split}"
                );
            }
        }
    }
}
