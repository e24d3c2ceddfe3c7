//! The kinds of requests that are measured.

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// The name on the command line.
    pub key: &'static str,
    pub name: &'static str,
    pub path: &'static str,
    /// Bytes of the request's body.
    pub sends: usize,
    /// Bytes of the answer's body.
    pub gets: usize,
    pub connections: usize,
}

/// Every path begins with this prefix.
pub const PREFIX: &str = "/bench";

const GET: Case =
    Case { key: "get", name: "GET 300 B", path: "/bench/s", sends: 0, gets: 300, connections: 64 };

pub static CASES: [Case; 6] = [
    GET,
    Case { key: "get512", name: "GET 300 B, 512 connections", connections: 512, ..GET },
    Case { key: "get64k", name: "GET 64 KiB", path: "/bench/64k", gets: 64 << 10, ..GET },
    Case { key: "get1m", name: "GET 1 MiB", path: "/bench/1m", gets: 1 << 20, ..GET },
    Case { key: "post1k", name: "POST 1 KiB", path: "/bench/post", sends: 1 << 10, gets: 2, ..GET },
    Case { key: "post1m", name: "POST 1 MiB", path: "/bench/post", sends: 1 << 20, gets: 2, ..GET },
];

impl Case {
    /// The bytes of a request, with `token` if there is one.
    pub fn request(&self, token: Option<&str>) -> Vec<u8> {
        let method = if self.sends > 0 { "POST" } else { "GET" };
        let mut head = format!("{method} {} HTTP/1.1\r\nhost: bench\r\n", self.path);
        if let Some(token) = token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        if self.sends > 0 {
            head.push_str(&format!(
                "content-type: application/octet-stream\r\ncontent-length: {}\r\n",
                self.sends
            ));
        }
        head.push_str("\r\n");
        [head.into_bytes(), vec![b'x'; self.sends]].concat()
    }
}

/// The policies that the proxies apply besides forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policies {
    /// Nothing: no log, no limits, no token.
    Bare,
    /// An access log in a file, a rate limit and request ids. The gateway verifies a token too, and exports one trace
    /// in a hundred.
    Full,
    /// Only TLS towards the client.
    Tls,
}

impl Policies {
    pub const ALL: [Self; 3] = [Self::Bare, Self::Full, Self::Tls];

    /// On the command line.
    pub fn key(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Full => "full",
            Self::Tls => "tls",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Full => "everything on",
            Self::Tls => "TLS",
        }
    }
}
