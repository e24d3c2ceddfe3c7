//! A client that writes the frames of HTTP/2 (RFC 9113) by hand, and may do what libraries do not.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::site::Site;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GO_AWAY: u8 = 7;

pub(crate) const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

pub(crate) struct Frames(TlsStream<TcpStream>);

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The last four bytes: the reason of a reset.
    pub(crate) fn reason(&self) -> u32 {
        self.number(self.payload.len() - 4)
    }

    pub(crate) fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

impl Frames {
    /// Connects, and sends the preface and empty settings.
    pub(crate) async fn open(site: &Site, address: SocketAddr) -> Self {
        let mut stream = site.connect(address, "a.example", &["h2"]).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut frames = Self(stream);
        frames.send(SETTINGS, 0, 0, &[]).await.unwrap();
        frames
    }

    pub(crate) async fn send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).await?;
        self.0.flush().await
    }

    /// Opens a stream with `headers` beside those of a GET of `/a`.
    pub(crate) async fn get(&mut self, stream: u32, headers: &[(&str, &str)]) -> std::io::Result<()> {
        let get = [(":method", "GET"), (":scheme", "https"), (":path", "/a"), (":authority", "a.example")];
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[&get, headers].concat())).await
    }

    /// A head in one frame, and the body to come unless `flags` end the stream.
    pub(crate) async fn head(
        &mut self,
        stream: u32,
        flags: u8,
        headers: &[(&str, &str)],
    ) -> std::io::Result<()> {
        self.send(HEADERS, END_HEADERS | flags, stream, &block(headers)).await
    }

    /// The next frame that is no part of the settings or windows; `None` at the end, or if none comes.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        tokio::time::timeout(Duration::from_secs(10), self.read()).await.ok()?
    }

    async fn read(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await.ok()?,
                PING if frame.flags & ACK == 0 => self.send(PING, ACK, 0, &frame.payload).await.ok()?,
                SETTINGS | PING | WINDOW_UPDATE => {}
                _ => return Some(frame),
            }
        }
    }

    /// The next frame of this kind.
    pub(crate) async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
}

const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;

/// Literal fields with new names, never indexed and without Huffman code (RFC 7541 §6.2.3).
fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0x10);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// A length with a prefix of seven bits (RFC 7541 §5.1), and the bytes.
fn text(block: &mut Vec<u8>, text: &str) {
    match text.len() {
        short @ 0..127 => block.push(short as u8),
        long => {
            block.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                block.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            block.push(rest as u8);
        }
    }
    block.extend_from_slice(text.as_bytes());
}
