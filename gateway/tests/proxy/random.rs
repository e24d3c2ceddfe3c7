//! Random and changed requests on many connections. The gateway and a strict reader ([`reader`]) must agree on where
//! each request ends; no client gets a byte that is another's; and good requests are answered all the while.
//!
//! `REQUESTS=1000000 cargo test -p gateway --test proxy random` sends more of them. What fails prints its seed, and
//! `SEED=… ` repeats it.

pub(crate) mod grammar; // what is sent
pub(crate) mod origin; // the service behind the gateway
pub(crate) mod reader; // what it means

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use grammar::{Sent, connection, markers};
use origin::{Origin, POISON, Seen};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reader::{LineEnds, Message, Read, request, response};

use crate::harness::{Gateway, Upstream};

const CLIENTS: usize = 16;
/// What the service has seen of a connection is judged this number of connections later, when nothing more can
/// arrive. Each client counts on its own.
const LATER: usize = 8;
const LIMITS: &str = "rate_per_second = 1000000000\nrate_burst = 1000000000\nuploads_per_client = 1000000";

/// How the strict reader understands a connection.
struct Meaning {
    requests: Vec<Message>,
    /// What has begun after them, or has no good end.
    rest: Option<Message>,
    /// Whether more was sent than the requests.
    has_rest: bool,
    /// Whether more was sent than a request that closes the connection. Then the kernel may reset it, and the end of
    /// the response is lost.
    may_be_reset: bool,
}

fn meaning(bytes: &[u8]) -> Meaning {
    let (mut requests, mut at) = (Vec::new(), 0);
    loop {
        match request(&bytes[at..], LineEnds::LineFeedsToo) {
            Read::Whole(message, length) => {
                at += length;
                let is_last = message.is_last;
                requests.push(message);
                if is_last {
                    let may_be_reset = at < bytes.len();
                    return Meaning { requests, rest: None, has_rest: false, may_be_reset };
                }
            }
            Read::Incomplete(rest) | Read::Malformed(rest) => {
                return Meaning { requests, rest, has_rest: at < bytes.len(), may_be_reset: false };
            }
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

#[actix_web::test]
async fn of_random_requests_the_gateway_and_a_strict_reader_find_the_same_ends() {
    let requests = number("REQUESTS").unwrap_or(20_000) as usize;
    let seed = number("SEED").unwrap_or_else(rand::random);
    println!("SEED={seed} REQUESTS={requests}");
    let origin = Origin::start();
    let gateway = Gateway::with(LIMITS, &[&Upstream::running_at(origin.address)]).await;
    let address = gateway.address();
    let (sent, answered, next) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU32::new(0));
    let failed = tokio::task::spawn_blocking(move || {
        let client = || {
            let mut pending = VecDeque::new();
            while sent.load(Ordering::Relaxed) < requests {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let mut random = StdRng::seed_from_u64(seed.wrapping_add(u64::from(number) << 32));
                let client = Client::run(address, number, &mut random)?;
                sent.fetch_add(client.sent.requests, Ordering::Relaxed);
                answered.fetch_add(client.judge_answers()?, Ordering::Relaxed);
                pending.push_back(client);
                if pending.len() > LATER {
                    pending.pop_front().map_or(Ok(()), |client| client.judge_service(&origin))?;
                }
            }
            pending.into_iter().try_for_each(|client| client.judge_service(&origin))
        };
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            let failed = clients.into_iter().filter_map(|client| client.join().unwrap().err());
            let failed = failed.chain(origin.wrong()).collect::<Vec<_>>();
            let (sent, answered) = (sent.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
            println!(
                "{sent} requests on {} connections, {answered} answered by the service",
                next.load(Ordering::Relaxed)
            );
            assert!(
                !failed.is_empty() || answered * 4 > sent,
                "too few reach the service: {answered} of {sent}"
            );
            failed
        })
    });
    let failed = failed.await.unwrap();
    assert!(failed.is_empty(), "SEED={seed} REQUESTS={requests}\n{}", failed.join("\n"));
}

#[actix_web::test]
async fn a_client_that_ends_its_side_after_a_large_chunked_body_is_answered() {
    let origin = Origin::start();
    let gateway = Gateway::start(&[&Upstream::running_at(origin.address)]).await;
    let (address, body) = (gateway.address(), "x".repeat(1 << 20));
    let head = "POST /a/m0000000000000000 HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    let bytes = format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let client = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answered = String::new();
        stream.read_to_string(&mut answered).unwrap();
        answered
    });
    let answered = client.await.unwrap();
    assert!(answered.contains("x-marker: m0000000000000000"), "{answered}");
    let seen = origin.take(0).whole;
    assert!(seen.len() == 1 && seen[0].body.len() == body.len());
}

/// A connection of a client, when it is over.
struct Client {
    number: u32,
    sent: Sent,
    meaning: Meaning,
    received: Vec<u8>,
}

impl Client {
    /// Sends in some pieces, ends its side, and reads to the end.
    fn run(address: SocketAddr, number: u32, random: &mut StdRng) -> Result<Self, String> {
        let sent = connection(random, number);
        let mut stream = TcpStream::connect(address).map_err(|why| why.to_string())?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut rest = &sent.bytes[..];
        // The gateway may close while this writes.
        for _ in 0..random.random_range(0..4) {
            let (piece, more) = rest.split_at(random.random_range(0..=rest.len()));
            let _ = stream.write_all(piece);
            // Often enough, the gateway reads the pieces one by one.
            std::thread::yield_now();
            rest = more;
        }
        let _ = stream.write_all(rest);
        let _ = stream.shutdown(Shutdown::Write);
        let (mut received, mut part) = (Vec::new(), [0; 16 * 1024]);
        let is_open = loop {
            match stream.read(&mut part) {
                Ok(0) => break false,
                Ok(read) => received.extend_from_slice(&part[..read]),
                Err(why) => break matches!(why.kind(), std::io::ErrorKind::WouldBlock),
            }
        };
        let client = Self { number, meaning: meaning(&sent.bytes), sent, received };
        if is_open { Err(client.wrong("the connection stays open")) } else { Ok(client) }
    }

    fn wrong(&self, why: &str) -> String {
        format!(
            "connection {}: {why}\nsent:     {}\nreceived: {}\nread as:  {:?}, then {:?}",
            self.number,
            self.sent.bytes.escape_ascii(),
            self.received[..self.received.len().min(3000)].escape_ascii(),
            self.meaning.requests.iter().map(|request| &request.line).collect::<Vec<_>>(),
            self.meaning.rest.as_ref().map(|request| &request.line),
        )
    }

    /// Each answer belongs to the request in its place, and there is none without a request. Returns how many came from
    /// the service.
    fn judge_answers(&self) -> Result<usize, String> {
        let requests = &self.meaning.requests;
        let own = format!("m{:08x}", self.number);
        if let Some(other) = markers(&self.received).find(|marker| !marker.starts_with(&own)) {
            return Err(self.wrong(&format!("{other} is another client's")));
        }
        if self.received.windows(POISON.len()).any(|window| window == POISON.as_bytes()) {
            return Err(self.wrong("bytes that nobody asked for"));
        }
        let (mut at, mut answers, mut from_service) = (0, 0, 0);
        while at < self.received.len() {
            let request = requests.get(answers).or(self.meaning.rest.as_ref());
            let read = |method| response(&self.received[at..], method, true);
            let read = match request {
                Some(request) => read(request.word(0)),
                // The gateway may or may not have read the method of a malformed head.
                None if matches!(read("HEAD"), Read::Whole(_, length) if at + length == self.received.len()) => {
                    read("HEAD")
                }
                None => read(""),
            };
            let (answer, length) = match read {
                Read::Whole(answer, length) => (answer, length),
                // The request broke off while its answer was under way.
                Read::Incomplete(Some(_)) if answers >= requests.len() => break,
                Read::Incomplete(_) if self.meaning.may_be_reset => break,
                other => return Err(self.wrong(&format!("no answer at {at}: {other:?}"))),
            };
            at += length;
            if answer.word(1).starts_with('1') {
                continue;
            }
            let marker = answer.values("x-marker").next().map(String::from_utf8_lossy);
            if let Some(marker) = marker {
                let target = request.map_or("", |request| request.word(1));
                if markers(target.as_bytes()).next() != Some(&marker) {
                    return Err(self.wrong(&format!("answer {answers} is that to {marker}")));
                }
                if answer.body.len() % marker.len() != 0 {
                    return Err(self.wrong(&format!("answer {answers} is not whole")));
                }
                from_service += 1;
            } else if answer.word(1) == "500" || self.sent.is_good {
                return Err(self.wrong(&format!("answer {answers} is {}", answer.line)));
            }
            answers += 1;
        }
        if answers > requests.len() + usize::from(self.meaning.has_rest) {
            return Err(self.wrong(&format!("{answers} answers")));
        }
        if self.sent.is_good && (answers, requests.len()) != (self.sent.requests, self.sent.requests) {
            return Err(self.wrong(&format!("{answers} answers to {} good requests", self.sent.requests)));
        }
        Ok(from_service)
    }

    /// The service has seen some of the requests, in their order, and nothing else.
    fn judge_service(&self, origin: &Origin) -> Result<(), String> {
        let Seen { whole, partial } = origin.take(self.number);
        let mut at = 0;
        for seen in &whole {
            // A request that is sent again has been seen just before.
            let from = at.max(1) - 1;
            let found = self.meaning.requests[from..].iter().position(|request| is_same(request, seen));
            match found {
                Some(found) => at = from + found + 1,
                None => return Err(self.wrong(&format!("the service has seen {seen:?}"))),
            }
        }
        for seen in &partial {
            let expected = self.meaning.requests.iter().chain(&self.meaning.rest);
            let mut begun = expected.filter(|request| line_of(request) == line_of(seen));
            if !begun.any(|request| request.body.starts_with(&seen.body)) {
                return Err(self.wrong(&format!("the service has seen the beginning {seen:?}")));
            }
        }
        Ok(())
    }
}

fn is_same(request: &Message, seen: &Message) -> bool {
    line_of(request) == line_of(seen) && request.body == seen.body
}

/// The method, and the target without scheme and authority.
fn line_of(request: &Message) -> (&str, &str) {
    let target = request.word(1);
    let path = target.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    (request.word(0), path.unwrap_or(target))
}
