//! Where the body of a request ends (RFC 9112 §6), and chunked bodies.

use actix_web::http::header::HeaderName;
use actix_web::web::{Buf as _, Bytes, BytesMut};

use super::request_body::Announced;

/// A body that does not follow the rules of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a malformed chunk")]
pub struct Malformed;

/// How the end of a body is found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    /// Bytes that are left.
    Length(u64),
    Chunked(Chunks),
}

/// What the input holds of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OfBody {
    Part(Bytes),
    /// More bytes are needed.
    Incomplete,
    End,
}

impl Framing {
    pub(super) fn announced(&self) -> Announced {
        match self {
            Self::None => Announced::Nothing,
            Self::Length(length) => Announced::Length(*length),
            Self::Chunked(_) => Announced::Chunks,
        }
    }

    /// Whether the whole body was taken.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::None => true,
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.0 == State::Done,
        }
    }

    /// Takes the next part of the body from the beginning of `input`.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<OfBody, Malformed> {
        match self {
            Self::None | Self::Length(0) => Ok(OfBody::End),
            Self::Length(_) if input.is_empty() => Ok(OfBody::Incomplete),
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= here as u64;
                Ok(OfBody::Part(input.split_to(here).freeze()))
            }
            Self::Chunked(chunks) => match chunks.next(input)? {
                Piece::Data(skip, length) => {
                    input.advance(skip);
                    Ok(OfBody::Part(input.split_to(length).freeze()))
                }
                Piece::Incomplete(skip) => {
                    input.advance(skip);
                    Ok(OfBody::Incomplete)
                }
                Piece::End(skip) => {
                    input.advance(skip);
                    Ok(OfBody::End)
                }
            },
        }
    }
}

/// Decoder of a chunked body. It returns byte ranges, and copies nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunks(State);

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Data(u64),
    /// The line end after the data.
    DataEnd,
    /// After the last chunk: trailers up to an empty line. They are dropped.
    Trailers,
    Done,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes to skip, and the length of the data after them.
    Data(usize, usize),
    /// More bytes are needed; the number of bytes to skip now.
    Incomplete(usize),
    /// The end of the body after this number of bytes.
    End(usize),
}

/// The longest line of a chunked body, with extensions and trailers, in bytes.
const LINE_LIMIT: usize = 8 * 1024;

impl Chunks {
    /// Decodes the next piece at the beginning of `bytes`.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, Malformed> {
        let mut at = 0;
        loop {
            match self.0 {
                State::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    if here == 0 {
                        return Ok(Piece::Incomplete(at));
                    }
                    let left = left - here as u64;
                    self.0 = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Piece::Data(at, here));
                }
                State::Done => return Ok(Piece::End(at)),
                State::Size | State::DataEnd | State::Trailers => {
                    let Some(end) = bytes[at..].windows(2).position(|pair| pair == b"\r\n") else {
                        return match bytes.len() - at > LINE_LIMIT {
                            true => Err(Malformed),
                            false => Ok(Piece::Incomplete(at)),
                        };
                    };
                    self.0 = self.after_line(&bytes[at..at + end])?;
                    at += end + 2;
                }
            }
        }
    }

    fn after_line(&self, line: &[u8]) -> Result<State, Malformed> {
        // Some readers end the line at one of these.
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(Malformed);
        }
        match self.0 {
            State::Size => {
                let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
                let size = std::str::from_utf8(size).map_err(|_| Malformed)?.trim_end_matches([' ', '\t']);
                if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(Malformed);
                }
                let size = u64::from_str_radix(size, 16).map_err(|_| Malformed)?;
                Ok(if size == 0 { State::Trailers } else { State::Data(size) })
            }
            State::DataEnd if line.is_empty() => Ok(State::Size),
            State::Trailers if line.is_empty() => Ok(State::Done),
            State::Trailers if is_field(line) => Ok(State::Trailers),
            _ => Err(Malformed),
        }
    }
}

/// `name: value`, with no space before the colon.
fn is_field(line: &[u8]) -> bool {
    let colon = line.iter().position(|byte| *byte == b':');
    colon.is_some_and(|colon| HeaderName::from_bytes(&line[..colon]).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a chunked body that arrives in parts of `size` bytes.
    fn dechunked(body: &[u8], size: usize) -> Result<Vec<u8>, Malformed> {
        let (mut chunks, mut data, mut buffer) = (Chunks::default(), Vec::new(), Vec::new());
        for part in body.chunks(size) {
            buffer.extend_from_slice(part);
            loop {
                match chunks.next(&buffer)? {
                    Piece::Data(skip, length) => {
                        data.extend_from_slice(&buffer[skip..skip + length]);
                        buffer.drain(..skip + length);
                    }
                    Piece::Incomplete(skip) => {
                        buffer.drain(..skip);
                        break;
                    }
                    Piece::End(_) => return Ok(data),
                }
            }
        }
        Err(Malformed)
    }

    #[test]
    fn chunks_are_joined_however_they_arrive() {
        let body = b"4\r\nWiki\r\n5;x=1\r\npedia\r\nE\r\n in\r\n\r\nchunks.\r\n0\r\nTrailer: x\r\n\r\n";
        for size in 1..body.len() {
            assert_eq!(dechunked(body, size).unwrap(), b"Wikipedia in\r\n\r\nchunks.", "{size}");
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for body in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "4\r\nWikipedia\r\n",
            "FFFFFFFFFFFFFFFFF\r\n",
            "+4\r\nWiki\r\n",
            "\n4\r\nWiki\r\n0\r\n\r\n",
            " 4\r\nWiki\r\n0\r\n\r\n",
            "4\u{b}\r\nWiki\r\n0\r\n\r\n",
            "4;a\nb\r\nWiki\r\n0\r\n\r\n",
            "4;a\rb\r\nWiki\r\n0\r\n\r\n",
            "4;\0\r\nWiki\r\n0\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\nX : 1\r\n\r\n",
            "0\r\n X: 1\r\n\r\n",
            "0\r\nX: 1\n\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(dechunked(body.as_bytes(), 4).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_body_ends_where_its_framing_says_and_the_next_request_is_not_part_of_it() {
        let chunked = || Framing::Chunked(Chunks::default());
        for (mut framing, sent) in
            [(Framing::Length(5), "Wiki!GET /"), (chunked(), "4\r\nWiki\r\n1\r\n!\r\n0\r\n\r\nGET /")]
        {
            let (mut input, mut body) = (BytesMut::new(), Vec::new());
            for byte in sent.bytes() {
                input.extend_from_slice(&[byte]);
                while let OfBody::Part(part) = framing.take(&mut input).unwrap() {
                    body.extend_from_slice(&part);
                }
            }
            assert!(framing.is_over());
            assert_eq!((&body[..], &input[..]), (&b"Wiki!"[..], &b"GET /"[..]));
        }
    }
}
