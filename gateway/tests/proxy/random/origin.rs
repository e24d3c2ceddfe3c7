//! A service that reads strictly, records every request, and answers in many ways, always with the request's marker.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::grammar::{is_marker, markers};
use super::reader::{LineEnds, Message, Read, request};

/// What came from one connection of a client.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) whole: Vec<Message>,
    /// Their connections ended before they did.
    pub(crate) partial: Vec<Message>,
}

#[derive(Default)]
struct Records {
    by_connection: HashMap<u32, Seen>,
    /// What no service should ever get, as text.
    wrong: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    records: Arc<Mutex<Records>>,
}

/// A text in bytes that no client may get.
pub(crate) const POISON: &str = "poison";

impl Origin {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Self { address: listener.local_addr().unwrap(), records: Arc::default() };
        let serving = origin.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (serving, stream) = (serving.clone(), stream.unwrap());
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        origin
    }

    /// What has come of this connection; it is forgotten.
    pub(crate) fn take(&self, connection: u32) -> Seen {
        self.records.lock().unwrap().by_connection.remove(&connection).unwrap_or_default()
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        self.records.lock().unwrap().wrong.clone()
    }

    fn serve(&self, mut stream: TcpStream) {
        let (mut input, mut part) = (Vec::new(), [0; 16 * 1024]);
        stream.set_nodelay(true).unwrap();
        loop {
            match request(&input, LineEnds::Strict) {
                Read::Whole(message, length) => {
                    input.drain(..length);
                    let (answer, closes) = answer(&message);
                    self.record(message, true);
                    if stream.write_all(&answer).is_err() || closes {
                        return;
                    }
                    continue;
                }
                Read::Incomplete(message) => match stream.read(&mut part) {
                    Ok(read @ 1..) => input.extend_from_slice(&part[..read]),
                    _ => {
                        message.into_iter().for_each(|message| self.record(message, false));
                        return;
                    }
                },
                Read::Malformed(_) => {
                    self.records.lock().unwrap().wrong.push(input.escape_ascii().to_string());
                    return;
                }
            }
        }
    }

    fn record(&self, message: Message, is_whole: bool) {
        let marker = markers(message.word(1).as_bytes()).next().map(str::to_owned);
        let mut records = self.records.lock().unwrap();
        let connection = marker.and_then(|marker| u32::from_str_radix(&marker[1..9], 16).ok());
        match connection {
            Some(connection) => {
                let seen = records.by_connection.entry(connection).or_default();
                if is_whole { seen.whole.push(message) } else { seen.partial.push(message) }
            }
            None if message.line.starts_with("GET /health")
                || message.line.starts_with("GET /openapi.json") => {}
            None => records.wrong.push(format!("{message:?}")),
        }
    }
}

/// The answer, and whether the connection closes after it.
fn answer(request: &Message) -> (Vec<u8>, bool) {
    let target = request.word(1).as_bytes();
    let Some(marker) = markers(target).next().filter(|marker| is_marker(marker.as_bytes())) else {
        return (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), false);
    };
    let is_head = request.word(0) == "HEAD";
    let kind = marker.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 10;
    let start = format!("HTTP/1.1 200 OK\r\nX-Marker: {marker}\r\n");
    let body = marker.repeat(if kind == 8 { 5000 } else { kind as usize + 1 });
    let with_length = |more: &str| {
        let body = if is_head { "" } else { &body };
        let length = marker.len() * if kind == 8 { 5000 } else { kind as usize + 1 };
        format!("{start}{more}Content-Length: {length}\r\n\r\n{body}")
    };
    let (text, closes) = match kind {
        0 if is_head => (format!("{start}Transfer-Encoding: chunked\r\n\r\n"), false),
        0 | 1 => {
            let chunks: String = body
                .as_bytes()
                .chunks(7)
                .map(|chunk| format!("{:x};x\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))
                .collect();
            let chunks = if is_head { String::new() } else { format!("{chunks}0\r\nX-T: {marker}\r\n\r\n") };
            (format!("{start}Transfer-Encoding: chunked\r\n\r\n{chunks}"), false)
        }
        2 => (format!("{start}Connection: close\r\n\r\n{}", if is_head { "" } else { &body }), true),
        3 => (format!("HTTP/1.1 204 No Content\r\nX-Marker: {marker}\r\n\r\n"), false),
        4 => (format!("HTTP/1.1 304 Not Modified\r\nX-Marker: {marker}\r\n\r\n"), false),
        5 => (format!("HTTP/1.1 103 Early Hints\r\nLink: </{marker}>\r\n\r\n{}", with_length("")), false),
        // More than was asked for.
        6 => {
            let more = format!("HTTP/1.1 200 OK\r\nX-Marker: {POISON}\r\nContent-Length: 6\r\n\r\n{POISON}");
            (with_length("") + &more, false)
        }
        7 => (with_length("Connection: close\r\n"), true),
        _ => (with_length(""), false),
    };
    (text.into_bytes(), closes)
}
