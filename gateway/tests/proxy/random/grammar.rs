//! Requests as a client may send them: good ones, odd ones, and bytes that were changed at random.

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

/// All that a client sends on one connection.
pub(crate) struct Sent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) requests: usize,
    /// Every request is good, and none but the last closes the connection.
    pub(crate) is_good: bool,
}

/// The marker in each path and in the response: `m`, the connection and the number, 16 hexadecimal digits.
pub(crate) fn marker(connection: u32, number: u32) -> String {
    format!("m{connection:08x}{number:08x}")
}

pub(crate) fn connection(random: &mut StdRng, connection: u32) -> Sent {
    let requests = random.random_range(1..=5);
    let is_good = random.random_bool(0.4);
    let mut bytes = Vec::new();
    for number in 0..requests {
        let is_last = number + 1 == requests;
        let marker = marker(connection, number);
        if is_good {
            bytes.extend(good(random, &marker, is_last));
        } else {
            let smuggled = format!("GET /a/{} HTTP/1.1\r\nHost: h\r\n\r\n", self::marker(connection, 0xffff));
            bytes.extend(odd(random, &marker, &smuggled));
        }
    }
    if !is_good && random.random_bool(0.5) {
        mutate(random, &mut bytes);
    }
    Sent { bytes, requests: requests as usize, is_good }
}

fn pick<'a, T: ?Sized>(random: &mut StdRng, values: &[&'a T]) -> &'a T {
    values[random.random_range(0..values.len())]
}

/// The name with large and small letters.
fn cased(random: &mut StdRng, name: &str) -> String {
    let mut case = |letter: char| if random.random() { letter.to_ascii_uppercase() } else { letter };
    name.chars().map(&mut case).collect()
}

fn data(random: &mut StdRng, longest: usize) -> Vec<u8> {
    let length = random.random_range(0..=longest);
    let mut data = vec![0; length];
    random.fill_bytes(&mut data);
    data
}

fn good(random: &mut StdRng, marker: &str, is_last: bool) -> Vec<u8> {
    let method = pick(random, &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]);
    let query = pick(random, &["", "?q=1", "?"]);
    let mut text = format!("{method} /a/{marker}{query} HTTP/1.1\r\n{}: h\r\n", cased(random, "host"));
    for number in 0..random.random_range(0..4) {
        text.push_str(&format!("{}{number}: some value \r\n", cased(random, "x-some")));
    }
    if is_last && random.random_bool(0.3) {
        text.push_str("Connection: close\r\n");
    }
    let longest = if random.random_bool(0.05) { 100_000 } else { 300 };
    match random.random_range(0..3) {
        0 => [text.as_bytes(), b"\r\n"].concat(),
        1 => {
            let body = data(random, longest);
            let name = cased(random, "content-length");
            [format!("{text}{name}:{}\r\n\r\n", body.len()).as_bytes(), &body].concat()
        }
        _ => {
            let body = data(random, longest);
            let (name, value) = (cased(random, "transfer-encoding"), cased(random, "chunked"));
            let expects = if random.random_bool(0.2) { "Expect: 100-continue\r\n" } else { "" };
            let head = format!("{text}{expects}{name}: {value}\r\n\r\n");
            let mut bytes = head.into_bytes();
            let mut rest = &body[..];
            while !rest.is_empty() {
                let (chunk, more) = rest.split_at(random.random_range(1..=rest.len()));
                let extension = pick(random, &["", "", ";x", ";x=1", " ;x=\"a b\""]);
                bytes.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
                rest = more;
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            bytes
        }
    }
}

const METHODS: [&str; 12] =
    ["GET", "POST", "POST", "HEAD", "PUT", "get", "G@T", "CONNECT", "OPTIONS", "TRACE", "", "\0GET"];
const VERSIONS: [&str; 12] = [
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "http/1.1",
    "HTTP/1.1 ",
    "HTTP/01.1",
    "HTTP/1.1\t",
    "",
];
const SPACES: [&str; 8] = [" ", " ", " ", " ", "  ", "\t", "\u{b}", ""];
const LINE_ENDS: [&str; 9] = ["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\n\r"];
const LENGTH_NAMES: [&str; 6] = [
    "Content-Length",
    "content-length",
    "Content-Length ",
    " Content-Length",
    "Content_Length",
    "Content-Length\0",
];
const CODING_NAMES: [&str; 6] = [
    "Transfer-Encoding",
    "TRANSFER-ENCODING",
    "Transfer-Encoding ",
    "Transfer-Encoding\t",
    "Transfer_Encoding",
    "\tTransfer-Encoding",
];
const CODINGS: [&str; 18] = [
    "chunked",
    "chunked",
    "chunked",
    "Chunked",
    " chunked",
    "chunked ",
    "\tchunked",
    "\u{b}chunked",
    "chunked, chunked",
    "gzip, chunked",
    "chunked, identity",
    "identity",
    "xchunked",
    "chunked;q=1",
    ",chunked",
    "chunked,",
    "\"chunked\"",
    "chun\0ked",
];
const HOSTS: [&str; 8] = [
    "Host: h\r\n",
    "Host: h\r\n",
    "Host: h\r\n",
    "",
    "Host: h\r\nHost: h\r\n",
    "Host:\r\n",
    "Host : h\r\n",
    "Host: a b\r\n",
];
const FIELDS: [&str; 20] = [
    "X: 1\r\n",
    "X: 1\r\n folded\r\n",
    "X: 1\r\n\tfolded: 1\r\n",
    "X\r\n",
    ": 1\r\n",
    "X: a\0b\r\n",
    "X\0: 1\r\n",
    "X: a\rb\r\n",
    "X: a\nContent-Length: 3\r\n",
    "X : 1\r\n",
    "X: \u{e9}\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: transfer-encoding\r\n",
    "Connection: content-length\r\n",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "Expect: 100-continue\r\n",
    "Expect: the unexpected\r\n",
    "Trailer: x\r\nTE: trailers\r\n",
];
const AFTER_SIZE: [&str; 16] = [
    "",
    "",
    "",
    "",
    " ",
    "\t",
    ";x",
    ";x=1",
    ";x=\"a\\\"b\"",
    ";a\nb",
    ";a\rb",
    "\n",
    "\u{b}",
    "\u{a0}",
    ";\0",
    " x",
];
const LAST_CHUNKS: [&str; 14] = [
    "0\r\n\r\n",
    "0\r\n\r\n",
    "0\r\n\r\n",
    "00\r\n\r\n",
    "0;x\r\n\r\n",
    "0\r\nX: 1\r\n\r\n",
    "0\r\nX: 1\n\r\n",
    "0\r\nX\r\n\r\n",
    "0\r\n\n",
    "0\n\n",
    "0\r\n\r",
    "0\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
    "0x0\r\n\r\n",
    "",
];

fn odd(random: &mut StdRng, marker: &str, smuggled: &str) -> Vec<u8> {
    // Most parts are good, so that the odd ones are reached.
    let rarely = |random: &mut StdRng| random.random_bool(0.15);
    let method = if rarely(random) { pick(random, &METHODS) } else { pick(random, &["GET", "POST", "HEAD"]) };
    let version = if rarely(random) { pick(random, &VERSIONS) } else { "HTTP/1.1" };
    let space = if rarely(random) { pick(random, &SPACES) } else { " " };
    let end = if rarely(random) { pick(random, &LINE_ENDS) } else { "\r\n" };
    let host = if rarely(random) { pick(random, &HOSTS) } else { "Host: h\r\n" };
    let origin = if rarely(random) {
        pick(random, &["http://h", "http://other", "*", "h:80", "//h", "https://h:1"])
    } else {
        ""
    };
    let before = if rarely(random) { pick(random, &["\r\n", "\r\n\r\n", "\n", "\r", " "]) } else { "" };
    let mut text = format!("{before}{method}{space}{origin}/a/{marker} {version}{end}{host}");
    for _ in 0..random.random_range(0..3) {
        text.push_str(pick(random, &FIELDS));
    }
    if random.random_bool(0.01) {
        let (long, many) = ("y".repeat(random.random_range(1..50_000)), random.random_range(1..150));
        text.push_str(&if random.random() { format!("X: {long}\r\n") } else { "X: 1\r\n".repeat(many) });
    }
    let body = match random.random_range(0..3) {
        0 => smuggled.as_bytes().to_vec(),
        1 => Vec::new(),
        _ => data(random, 40),
    };
    let (chunked, chunks) = (random.random_bool(0.5), chunks(random, &body));
    if chunked || rarely(random) {
        let name = if rarely(random) { pick(random, &CODING_NAMES) } else { "Transfer-Encoding" };
        let coding = if rarely(random) { pick(random, &CODINGS) } else { "chunked" };
        text.push_str(&format!("{name}:{coding}\r\n"));
        if random.random_bool(0.05) {
            text.push_str("Transfer-Encoding: chunked\r\n");
        }
    }
    if !chunked || rarely(random) {
        let name = if rarely(random) { pick(random, &LENGTH_NAMES) } else { "Content-Length" };
        text.push_str(&format!("{name}: {}\r\n", length(random, body.len())));
        if random.random_bool(0.05) {
            text.push_str(&format!("Content-Length: {}\r\n", length(random, body.len())));
        }
    }
    text.push_str(end);
    let body = if chunked { chunks } else { body };
    [text.as_bytes(), &body].concat()
}

fn length(random: &mut StdRng, length: usize) -> String {
    match random.random_range(0..40) {
        0 => format!("+{length}"),
        1 => format!("-{length}"),
        2 => format!("{length}, {length}"),
        3 => format!("{length}, {}", length + 1),
        4 => format!("0{length}"),
        5 => format!("0x{length:x}"),
        6 => format!("{length} 1"),
        7 => "18446744073709551615".to_owned(),
        8 => "18446744073709551616".to_owned(),
        9 => "9".repeat(300),
        10 => String::new(),
        11 => format!("{length}\u{b}"),
        12 => "\u{ff15}".to_owned(),
        13 => format!("{}", length + 1),
        14 => format!("{}", length.saturating_sub(1)),
        15 => format!("{length}\0"),
        16 => format!("\"{length}\""),
        17 => format!("{length}\r"),
        _ => length.to_string(),
    }
}

fn chunks(random: &mut StdRng, body: &[u8]) -> Vec<u8> {
    let rarely = |random: &mut StdRng| random.random_bool(0.1);
    let (mut bytes, mut rest) = (Vec::new(), body);
    while !rest.is_empty() {
        let (chunk, more) = rest.split_at(random.random_range(1..=rest.len()));
        let length = chunk.len();
        let size = match random.random_range(0..30) {
            0 => format!("0x{length:x}"),
            1 => format!(" {length:x}"),
            2 => format!("+{length:x}"),
            3 => format!("-{length:x}"),
            4 => format!("{}{length:x}", "0".repeat(30)),
            5 => format!("{:x}", length + 1),
            6 => format!("{:x}", length - 1),
            7 => format!("1{}{length:x}", "0".repeat(16)),
            8 => "ffffffffffffffff".to_owned(),
            9 => format!("\n{length:x}"),
            _ => format!("{length:X}"),
        };
        let after = if rarely(random) { pick(random, &AFTER_SIZE) } else { "" };
        let end =
            if rarely(random) { pick(random, &["\r\n", "\n", "\r", "", "\r\r\n", "x\r\n"]) } else { "\r\n" };
        bytes.extend(format!("{size}{after}\r\n").bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(end.as_bytes());
        rest = more;
    }
    let last = if rarely(random) { pick(random, &LAST_CHUNKS) } else { LAST_CHUNKS[0] };
    bytes.extend_from_slice(last.as_bytes());
    bytes
}

const INSERTED: [&[u8]; 16] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"chunked",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"Content-Length: 1\r\n",
];

/// Changes up to four places at random. No marker is changed: it says which connection a request came from.
fn mutate(random: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..random.random_range(1..=4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.random_range(0..bytes.len());
        if is_in_marker(bytes, at) {
            continue;
        }
        match random.random_range(0..6) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => drop(bytes.remove(at)),
            3 => {
                let inserted = pick(random, &INSERTED);
                drop(bytes.splice(at..at, inserted.iter().copied()));
            }
            4 => {
                let end = (at + random.random_range(1..40)).min(bytes.len());
                let copied = bytes[at..end].to_vec();
                let to = random.random_range(0..=bytes.len());
                if to == bytes.len() || !is_in_marker(bytes, to) {
                    drop(bytes.splice(to..to, copied));
                }
            }
            _ if random.random_bool(0.2) => bytes.truncate(at),
            _ => {}
        }
    }
}

/// Whether a change here would change a marker, or make another of it.
fn is_in_marker(bytes: &[u8], at: usize) -> bool {
    const LENGTH: usize = 17;
    let from = at.saturating_sub(LENGTH);
    (from..=at).any(|start| bytes.get(start..start + LENGTH).is_some_and(is_marker))
}

pub(crate) fn is_marker(bytes: &[u8]) -> bool {
    bytes.len() == 17
        && bytes[0] == b'm'
        && bytes[1..].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The markers in these bytes.
pub(crate) fn markers(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.windows(17).filter(|window| is_marker(window)).filter_map(|window| std::str::from_utf8(window).ok())
}
