//! Parses HTTP/1.1 responses (RFC 9112), as far as a gateway needs it.

use std::mem::MaybeUninit;
use std::ops::Range;

use actix_web::body::BodySize;
use actix_web::http::StatusCode;
use actix_web::web::{Bytes, BytesMut};
use shared::http::is_event_stream;

use super::UpstreamError;
use super::pool::take;

/// The largest response head, in bytes.
const HEAD_LIMIT: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;

/// The headers of a response, as received. Each name and value is a range in the bytes of the head.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Headers {
    bytes: Bytes,
    fields: Vec<[Range<usize>; 2]>,
    /// The names in `Connection`, except `close` and `keep-alive`: such fields are for this hop only.
    hop_by_hop: Vec<Range<usize>>,
}

impl Headers {
    /// Names and values of the fields that are `kept`, by name, and that `Connection` does not name. The case of a
    /// name is as received.
    pub fn filtered(&self, kept: impl Fn(&[u8]) -> bool) -> impl Iterator<Item = (&[u8], Bytes)> {
        let fields = self.fields.iter().map(|[name, value]| (&self.bytes[name.clone()], value));
        let is_named = |name: &[u8]| {
            self.hop_by_hop.iter().any(|named| self.bytes[named.clone()].eq_ignore_ascii_case(name))
        };
        let kept = fields.filter(move |(name, _)| kept(name) && !is_named(name));
        kept.map(|(name, value)| (name, self.bytes.slice(value.clone())))
    }

    /// The values of a header.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let is = move |place: &Range<usize>| self.bytes[place.clone()].eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(move |[name, _]| is(name)).map(|[_, value]| &self.bytes[value.clone()])
    }

    /// The first value of a header, if it is text.
    pub fn get(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.all(name).next()?).ok()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: Headers,
    pub(super) framing: Framing,
    pub(super) keeps_alive: bool,
    pub(super) is_event_stream: bool,
}

/// How the end of a body is determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// The message has no body.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The server closes the connection.
    Close,
}

impl Framing {
    pub(super) fn size(self) -> BodySize {
        match self {
            Self::None => BodySize::Sized(0),
            Self::Length(length) => BodySize::Sized(length),
            Self::Chunked | Self::Close => BodySize::Stream,
        }
    }
}

/// The head of a 103 for the client. It holds only the `Link` headers.
pub(super) fn early_hints(headers: &Headers) -> Vec<u8> {
    let mut head = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
    for link in headers.all("link") {
        head.extend([b"link: ".as_slice(), link, b"\r\n"].concat());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Takes a response head from the beginning of `read`. `None` if it is incomplete.
pub(super) fn take_head(read: &mut BytesMut, is_head: bool) -> Result<Option<Head>, UpstreamError> {
    let malformed = |why: &str| UpstreamError::Malformed(why.to_owned());
    let bytes: &[u8] = read;
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut fields,
    );
    let length = match parsed.map_err(|error| malformed(&error.to_string()))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if bytes.len() > HEAD_LIMIT => {
            return Err(malformed("the head is too long"));
        }
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or_else(|| malformed("no such status"))?;
    let is_old = response.version == Some(0);
    let (mut content_length, mut chunked, mut close) = (None, false, is_old);
    let mut kind = None;
    let (mut fields, mut hop_by_hop) = (Vec::with_capacity(response.headers.len()), Vec::new());
    let place = |part: &[u8]| {
        let begin = part.as_ptr() as usize - bytes.as_ptr() as usize;
        begin..begin + part.len()
    };
    for field in response.headers.iter() {
        let value = || std::str::from_utf8(field.value).unwrap_or_default();
        if field.name.eq_ignore_ascii_case("content-length") {
            let digits = Some(value().trim()).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits
                .and_then(|digits| digits.parse::<u64>().ok())
                .ok_or_else(|| malformed("a bad length"))?;
            if content_length.replace(length).is_some_and(|other| other != length) {
                return Err(malformed("two lengths"));
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked {
                return Err(malformed("two transfer encodings"));
            }
            chunked = value().trim().eq_ignore_ascii_case("chunked");
            if !chunked {
                return Err(malformed("an unknown transfer encoding"));
            }
            // HTTP/1.0 has no chunks, so a proxy in between may have mixed two messages (RFC 9112 §6.1).
            if is_old {
                return Err(malformed("chunks in HTTP/1.0"));
            }
        } else if field.name.eq_ignore_ascii_case("content-type") {
            // If there are several, the first counts.
            kind = kind.or(Some(field.value));
        } else if field.name.eq_ignore_ascii_case("connection") {
            for option in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                match option {
                    _ if option.eq_ignore_ascii_case(b"close") => close = true,
                    _ if option.eq_ignore_ascii_case(b"keep-alive") => {}
                    named => hop_by_hop.push(place(named)),
                }
            }
        }
        fields.push([place(field.name.as_bytes()), place(field.value)]);
    }
    let framing = match (content_length, chunked) {
        _ if is_head || status.is_informational() || matches!(status.as_u16(), 204 | 304) => Framing::None,
        // Ambiguous: a request smuggling risk.
        (Some(_), true) => return Err(malformed("a length and chunks")),
        (None, true) => Framing::Chunked,
        (Some(0), false) => Framing::None,
        (Some(length), false) => Framing::Length(length),
        (None, false) => Framing::Close,
    };
    let keeps_alive = !close && framing != Framing::Close;
    let is_event_stream = kind.is_some_and(is_event_stream);
    let headers = Headers { bytes: take(read, length), fields, hop_by_hop };
    Ok(Some(Head { status, headers, framing, keeps_alive, is_event_stream }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, UpstreamError> {
        take_head(&mut text.into(), false)
    }

    fn framing(headers: &str) -> Framing {
        head(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n")).unwrap().unwrap().framing
    }

    #[test]
    fn the_head_determines_the_end_of_the_body() {
        assert_eq!(framing("Content-Length: 5\r\n"), Framing::Length(5));
        assert_eq!(framing("Content-Length: 0\r\n"), Framing::None);
        assert_eq!(framing("Transfer-Encoding: chunked\r\n"), Framing::Chunked);
        assert_eq!(framing(""), Framing::Close);
        let mut read = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nrest".into();
        assert_eq!(take_head(&mut read, true).unwrap().unwrap().framing, Framing::None);
        assert_eq!(read, "rest");
    }

    #[test]
    fn an_ambiguous_or_malformed_head_is_refused() {
        for headers in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: five\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: +5\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(head(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n")).is_err(), "{headers}");
        }
        assert!(head("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(head("SSH-2.0-OpenSSH\r\n").is_err());
        assert!(head("HTTP/1.1 200 OK\r\nContent-").unwrap().is_none());
    }

    #[test]
    fn only_the_content_type_of_events_makes_an_event_stream() {
        let is = |headers: &str| {
            head(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n")).unwrap().unwrap().is_event_stream
        };
        for kind in [
            "text/event-stream",
            "Text/Event-Stream",
            "text/event-stream; charset=utf-8",
            "text/event-stream ;a=b",
        ] {
            assert!(is(&format!("Content-Type: {kind}\r\n")), "{kind}");
        }
        for kind in ["text/event-stream2", "text/event-stream/x", "text/event", "a/b; text/event-stream", ""]
        {
            assert!(!is(&format!("Content-Type: {kind}\r\n")), "{kind}");
        }
        assert!(!is("Content-Type: text/plain\r\nContent-Type: text/event-stream\r\n"));
    }

    #[test]
    fn a_connection_is_reused_unless_the_response_forbids_it() {
        let keeps = |text: &str| head(text).unwrap().unwrap().keeps_alive;
        assert!(keeps("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"));
        assert!(!keeps("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\n\r\n"));
    }
}
