//! Asks the program in this container: `probe PORT PATH` prints the body of the answer, and ends well
//! if its status is 200. `probe PORT` works behind mutual TLS too: it ends its side of a connection, and the
//! program must end the other side. PROBE_HEADER is a header to send, out of sight of ps(1). Health checks and scripts
//! use it: no image holds curl, and that of NATS not even a shell.

use std::io::{Error, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let Some(port) = args.next() else {
        return Err(Error::other("usage: [PROBE_HEADER=…] probe PORT [PATH]"));
    };
    let port: u16 = port.parse().map_err(Error::other)?;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let Some(path) = args.next() else {
        stream.shutdown(Shutdown::Write)?;
        return stream.read_to_end(&mut Vec::new()).map(drop);
    };
    let header = std::env::var("PROBE_HEADER").unwrap_or_default();
    let header = if header.is_empty() { header } else { header + "\r\n" };
    // HTTP/1.0, so that the body ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\n{header}\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;

    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    println!("{body}");
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(Error::other(head.lines().next().unwrap_or_default().to_owned())),
    }
}
