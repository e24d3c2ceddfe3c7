//! Parses HTTP/1.1 responses (RFC 9112), as far as a gateway needs it.

use std::mem::MaybeUninit;
use std::ops::Range;

use actix_web::body::BodySize;
use actix_web::http::StatusCode;
use actix_web::web::{Bytes, BytesMut};

use super::UpstreamError;

/// The largest response head, in bytes.
const HEAD_LIMIT: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;

/// The headers of a response, as received: places in the bytes of its head.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Headers {
    bytes: Bytes,
    fields: Vec<[Range<usize>; 2]>,
}

impl Headers {
    /// Names in any case, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Bytes)> {
        let value = |value: &Range<usize>| self.bytes.slice(value.clone());
        self.fields.iter().map(move |[name, place]| (&self.bytes[name.clone()], value(place)))
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
}

/// How the end of a body is determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// No body.
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

/// A 103 for the client: the links of `headers`, nothing else.
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
    let (mut content_length, mut chunked, mut close) = (None, false, response.version == Some(0));
    let mut fields = Vec::with_capacity(response.headers.len());
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
            chunked = value().trim().eq_ignore_ascii_case("chunked");
            if !chunked {
                return Err(malformed("an unknown transfer encoding"));
            }
        } else if field.name.eq_ignore_ascii_case("connection") {
            close |= value().split(',').any(|token| token.trim().eq_ignore_ascii_case("close"));
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
    let headers = Headers { bytes: read.split_to(length).freeze(), fields };
    Ok(Some(Head { status, headers, framing, keeps_alive }))
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
        ] {
            assert!(head(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n")).is_err(), "{headers}");
        }
        assert!(head("SSH-2.0-OpenSSH\r\n").is_err());
        assert!(head("HTTP/1.1 200 OK\r\nContent-").unwrap().is_none());
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
