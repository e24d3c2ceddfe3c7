//! Plain HTTP/1.1 over a blocking socket, and a client at a fixed rate.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

/// Where a proxy listens.
#[derive(Clone)]
pub struct Address {
    pub port: u16,
    /// The trusted certificates; `None` without TLS.
    pub tls: Option<Arc<ClientConfig>>,
}

/// The name in the certificates of all proxies.
pub const HOST: &str = "gateway";

/// A connection that is kept open.
pub struct Plain {
    stream: Box<dyn Stream>,
    /// Bytes that were received and not consumed.
    input: Vec<u8>,
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

const TIMEOUT: Duration = Duration::from_secs(30);
const READ_SIZE: usize = 64 * 1024;

impl Plain {
    pub fn over(stream: TcpStream) -> Self {
        // Only a closed socket refuses these, and then reading fails, too.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(TIMEOUT));
        Self { stream: Box::new(stream), input: Vec::new() }
    }

    pub fn connect(address: &Address) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", address.port)).map_err(|why| why.to_string())?;
        let Some(config) = &address.tls else { return Ok(Self::over(stream)) };
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(TIMEOUT));
        let host = ServerName::try_from(HOST).map_err(|why| why.to_string())?;
        let connection = ClientConnection::new(config.clone(), host).map_err(|why| why.to_string())?;
        Ok(Self { stream: Box::new(StreamOwned::new(connection, stream)), input: Vec::new() })
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends a request, and returns the length of the body of its answer, which must be 200.
    pub fn exchange(&mut self, request: &[u8]) -> Result<usize, String> {
        self.send(request).map_err(|why| why.to_string())?;
        let (head, length) = self.receive().ok_or("the connection has ended")?;
        if head.starts_with("HTTP/1.1 200") { Ok(length) } else { Err(head) }
    }

    /// Receives a message. Returns its head in small letters but for the first line, and the length of its body.
    pub fn receive(&mut self) -> Option<(String, usize)> {
        let end = self.find(b"\r\n\r\n", 0)? + 4;
        let head = String::from_utf8_lossy(&self.input[..end]).into_owned();
        let lower = head.to_ascii_lowercase();
        let (length, end) = if lower.contains("transfer-encoding: chunked") {
            let (mut length, mut at) = (0, end);
            loop {
                let line_end = self.find(b"\r\n", at)?;
                let size = std::str::from_utf8(&self.input[at..line_end]).ok()?;
                let size = usize::from_str_radix(size.trim(), 16).ok()?;
                at = line_end + 2 + size + 2;
                length += size;
                self.fill(at)?;
                if size == 0 {
                    break (length, at);
                }
            }
        } else {
            let length =
                lower.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse().ok());
            let length = length.unwrap_or(0);
            self.fill(end + length)?;
            (length, end + length)
        };
        self.input.drain(..end);
        Some((head, length))
    }

    fn find(&mut self, what: &[u8], from: usize) -> Option<usize> {
        let mut from = from;
        loop {
            let found = self.input.get(from..)?.windows(what.len()).position(|window| window == what);
            if let Some(found) = found {
                return Some(from + found);
            }
            from = from.max((self.input.len() + 1).saturating_sub(what.len()));
            self.fill(self.input.len() + 1)?;
        }
    }

    /// Reads until the input has at least this many bytes.
    fn fill(&mut self, length: usize) -> Option<()> {
        while self.input.len() < length {
            let before = self.input.len();
            self.input.resize(before + READ_SIZE, 0);
            let read = self.stream.read(&mut self.input[before..]).unwrap_or(0);
            self.input.truncate(before + read);
            if read == 0 {
                return None;
            }
        }
        Some(())
    }
}

/// The latency that clients at a fixed rate measured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// The median in microseconds.
    pub p50: f64,
    pub p99: f64,
    /// Requests per second that were answered in time, as part of those that were to be.
    pub achieved: f64,
}

/// Sends `rate` requests per second on several connections, even if responses are late: a thread for each connection,
/// whose requests are due at fixed times. The latency counts from when a request was due if the answer before it was
/// late, so that a slow answer is not hidden by the requests that were not sent meanwhile.
pub fn at_rate(
    address: &Address,
    request: &[u8],
    connections: usize,
    rate: f64,
    time: Duration,
) -> Result<Latency, String> {
    let between = Duration::from_secs_f64(connections as f64 / rate);
    let began = Instant::now() + Duration::from_millis(100);
    let run = |number: usize| -> Result<Vec<Duration>, String> {
        let mut plain = Plain::connect(address)?;
        let mut due = began + between.mul_f64(number as f64 / connections as f64);
        let mut took = Vec::new();
        while due < began + time {
            let now = Instant::now();
            let from = if now < due {
                std::thread::sleep(due - now);
                // The sleep is a little longer, and that is not the proxy's fault.
                Instant::now()
            } else {
                due
            };
            match plain.exchange(request) {
                Ok(_) => took.push(from.elapsed()),
                // The request is not served, which `achieved` shows.
                Err(_) => plain = Plain::connect(address)?,
            }
            due += between;
            if Instant::now() > began + time * 2 {
                break;
            }
        }
        Ok(took)
    };
    let took: Result<Vec<_>, String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|number| scope.spawn(move || run(number))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a client has panicked".to_owned())))
            .collect()
    });
    let elapsed = began.elapsed();
    let mut took = took?.concat();
    took.sort_unstable();
    let at = |part: f64| {
        let index = ((took.len() as f64 * part) as usize).min(took.len().saturating_sub(1));
        took.get(index).map_or(0.0, |took| took.as_secs_f64() * 1e6)
    };
    let due = rate * time.as_secs_f64();
    let achieved = took.len() as f64 / due / (elapsed.as_secs_f64() / time.as_secs_f64()).max(1.0);
    Ok(Latency { p50: at(0.5), p99: at(0.99), achieved })
}
