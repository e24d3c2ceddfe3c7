//! A strict reader of HTTP/1.1, written from RFC 9112 and apart from the gateway's code. Where the RFC lets a reader
//! choose, it takes what has one meaning only.

/// A request or a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// The request line or the status line.
    pub(crate) line: String,
    /// Names in small letters.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    /// The body without the framing of chunks.
    pub(crate) body: Vec<u8>,
    /// No request follows it on this connection.
    pub(crate) is_last: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// A whole message, and its length in bytes.
    Whole(Message, usize),
    /// The bytes end within a message; what is known of it if its head is whole.
    Incomplete(Option<Message>),
    /// The rest of the connection cannot be read. Has the message as far as it is known, if its head is good.
    Malformed(Option<Message>),
}

enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Which line ends a head may have. RFC 9112 §2.2 lets a server accept a line feed alone from a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEnds {
    Strict,
    LineFeedsToo,
}

struct Bad;

impl Message {
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_slice())
    }

    /// A word of the first line: method, target, version; or version, status.
    pub(crate) fn word(&self, number: usize) -> &str {
        self.line.split(' ').nth(number).unwrap_or_default()
    }

    fn is_old(&self) -> bool {
        self.line.ends_with("HTTP/1.0") || self.line.starts_with("HTTP/1.0")
    }

    fn connection_has(&self, option: &str) -> bool {
        let options = self.values("connection").flat_map(|value| value.split(|byte| *byte == b','));
        options.map(<[u8]>::trim_ascii).any(|one| one.eq_ignore_ascii_case(option.as_bytes()))
    }
}

pub(crate) fn request(bytes: &[u8], line_ends: LineEnds) -> Read {
    // §2.2: empty lines before a request are ignored.
    let mut start = 0;
    while let Some(rest) = bytes.get(start..) {
        match rest {
            [b'\r', b'\n', ..] => start += 2,
            [b'\n', ..] if line_ends == LineEnds::LineFeedsToo => start += 1,
            _ => break,
        }
    }
    let (mut message, at) = match head(bytes, start, line_ends) {
        Ok(Some(head)) => head,
        Ok(None) => return Read::Incomplete(None),
        Err(Bad) => return Read::Malformed(None),
    };
    let framing = match request_framing(&message) {
        Ok(framing) => framing,
        Err(Bad) => return Read::Malformed(None),
    };
    message.is_last = message.word(0) == "CONNECT"
        || message.connection_has("close")
        || message.connection_has("upgrade")
        || message.values("upgrade").any(|one| trimmed(one).eq_ignore_ascii_case(b"websocket"))
        || (message.is_old() && !message.connection_has("keep-alive"));
    with_body(message, bytes, at, &framing, false)
}

/// The response to a request with this method. `has_ended` says that nothing follows the bytes.
pub(crate) fn response(bytes: &[u8], method: &str, has_ended: bool) -> Read {
    let (message, at) = match head(bytes, 0, LineEnds::Strict) {
        Ok(Some(head)) => head,
        Ok(None) => return Read::Incomplete(None),
        Err(Bad) => return Read::Malformed(None),
    };
    let status: Option<u16> = message.word(1).parse().ok();
    let framing = match (status, lengths(&message), is_chunked(&message)) {
        (None, ..) | (_, Err(Bad), _) | (_, _, Err(Bad)) => return Read::Malformed(None),
        (_, Ok(Some(_)), Ok(true)) => return Read::Malformed(None),
        (Some(100..200 | 204 | 304), ..) => Framing::Length(0),
        _ if method == "HEAD" => Framing::Length(0),
        (_, _, Ok(true)) => Framing::Chunked,
        (_, Ok(Some(length)), _) => Framing::Length(length),
        _ => Framing::UntilClose,
    };
    with_body(message, bytes, at, &framing, has_ended)
}

/// The first line and the fields, and where the body begins; `None` if there are not enough bytes.
fn head(bytes: &[u8], start: usize, line_ends: LineEnds) -> Result<Option<(Message, usize)>, Bad> {
    let (mut message, mut at, mut is_first) = (Message::default(), start, true);
    loop {
        let Some((line, next)) = line(bytes, at, line_ends)? else { return Ok(None) };
        at = next;
        if is_first {
            message.line = first_line(line)?;
            is_first = false;
        } else if line.is_empty() {
            return Ok(Some((message, at)));
        } else {
            message.fields.push(field(line)?);
        }
    }
}

/// Reads one line without its end. Returns also where the next begins.
fn line(bytes: &[u8], at: usize, line_ends: LineEnds) -> Result<Option<(&[u8], usize)>, Bad> {
    let rest = &bytes[at..];
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = match rest[..end].strip_suffix(b"\r") {
        Some(line) => line,
        None if line_ends == LineEnds::LineFeedsToo => &rest[..end],
        None => return Err(Bad),
    };
    // §2.2 and RFC 9110 §5.5: neither a carriage return alone nor NUL has one meaning.
    if line.iter().any(|byte| matches!(byte, b'\r' | 0)) { Err(Bad) } else { Ok(Some((line, at + end + 1))) }
}

/// `method SP target SP version` or `version SP status SP reason`, with single spaces.
fn first_line(line: &[u8]) -> Result<String, Bad> {
    let text = String::from_utf8(line.to_vec()).map_err(|_| Bad)?;
    if let Some(rest) = text.strip_prefix("HTTP/1.") {
        let digits = |range: std::ops::Range<usize>| {
            rest.get(range).is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
        };
        return if digits(0..1) && digits(2..5) { Ok(text) } else { Err(Bad) };
    }
    let words: Vec<&str> = text.split(' ').collect();
    let [method, target, "HTTP/1.1" | "HTTP/1.0"] = words[..] else { return Err(Bad) };
    let is_target = !target.is_empty() && target.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    if is_token(method.as_bytes()) && is_target { Ok(text) } else { Err(Bad) }
}

/// §5.1: no white space before the colon, and none before the name, which would continue the line above (§5.2).
fn field(line: &[u8]) -> Result<(String, Vec<u8>), Bad> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Bad)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(Bad);
    }
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), trimmed(value).to_vec()))
}

fn is_token(bytes: &[u8]) -> bool {
    let is_special = |byte: &u8| b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || is_special(byte))
}

/// Removes spaces and tabs around the value: no other white space is optional.
fn trimmed(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |at| at + 1);
    &value[start..end]
}

/// §6.1 and §6.3.
fn request_framing(message: &Message) -> Result<Framing, Bad> {
    let hosts = message.values("host").count();
    if hosts > 1 || (hosts == 0 && !message.is_old()) {
        return Err(Bad);
    }
    match (lengths(message)?, is_chunked(message)?) {
        (Some(_), true) => Err(Bad),
        (_, true) if message.is_old() => Err(Bad),
        (_, true) => Ok(Framing::Chunked),
        (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// `Content-Length`: digits only; repeated only if all are equal.
fn lengths(message: &Message) -> Result<Option<u64>, Bad> {
    let mut length = None;
    for value in message.values("content-length").flat_map(|value| value.split(|byte| *byte == b',')) {
        let value = trimmed(value);
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Bad);
        }
        let value = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok()).ok_or(Bad)?;
        if *length.get_or_insert(value) != value {
            return Err(Bad);
        }
    }
    Ok(length)
}

/// Whether the last coding of `Transfer-Encoding`, and no other, is chunked. A message with another last coding has
/// no end that a server can find.
fn is_chunked(message: &Message) -> Result<bool, Bad> {
    let codings: Vec<&[u8]> = message
        .values("transfer-encoding")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(trimmed)
        .collect();
    let is = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    match codings.split_last() {
        None => Ok(false),
        Some((last, others)) if is(last) && !others.iter().any(is) => Ok(true),
        Some(_) => Err(Bad),
    }
}

fn with_body(mut message: Message, bytes: &[u8], at: usize, framing: &Framing, has_ended: bool) -> Read {
    let rest = &bytes[at..];
    match framing {
        Framing::UntilClose => {
            message.body = rest.to_vec();
            if has_ended { Read::Whole(message, bytes.len()) } else { Read::Incomplete(Some(message)) }
        }
        Framing::Length(length) => {
            let here = usize::try_from(*length).unwrap_or(usize::MAX).min(rest.len());
            message.body = rest[..here].to_vec();
            if here as u64 == *length {
                Read::Whole(message, at + here)
            } else {
                Read::Incomplete(Some(message))
            }
        }
        Framing::Chunked => match chunks(rest, &mut message.body) {
            Ok(Some(length)) => Read::Whole(message, at + length),
            Ok(None) => Read::Incomplete(Some(message)),
            Err(Bad) => Read::Malformed(Some(message)),
        },
    }
}

/// §7.1. Returns the bytes that the body takes; `None` if there are not enough.
fn chunks(bytes: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, Bad> {
    let mut at = 0;
    loop {
        let Some((size, next)) = line(bytes, at, LineEnds::Strict)? else { return Ok(None) };
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let extension = trimmed(&size[digits..]);
        if !(extension.is_empty() || extension.starts_with(b";")) {
            return Err(Bad);
        }
        let size =
            std::str::from_utf8(&size[..digits]).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
        let size = size.ok_or(Bad)?;
        at = next;
        if size == 0 {
            break;
        }
        let rest = &bytes[at..];
        let here = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        body.extend_from_slice(&rest[..here]);
        at += here;
        match &rest[here..] {
            [b'\r', b'\n', ..] => at += 2,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(Bad),
        }
    }
    loop {
        let Some((line, next)) = line(bytes, at, LineEnds::Strict)? else { return Ok(None) };
        at = next;
        if line.is_empty() {
            return Ok(Some(at));
        }
        field(line)?;
    }
}
