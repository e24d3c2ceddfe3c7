//! Requests in flight: the limit of a route, its queue, and which requests a busy service refuses first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shared::testing::{Api, eventually};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::OK;
use crate::harness::{Gateway, Upstream, all_healthy, free_ports, head_of, raw};

/// A service that answers a request for `…/held` only when the test allows it.
struct Holding {
    replicas: Vec<Upstream>,
    held: Arc<AtomicUsize>,
    allowed: Arc<Semaphore>,
}

impl Holding {
    async fn start(replicas: usize) -> Self {
        let mut service =
            Self { replicas: Vec::new(), held: Arc::default(), allowed: Arc::new(Semaphore::new(0)) };
        for _ in 0..replicas {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            service.replicas.push(Upstream::running_at(listener.local_addr().unwrap()));
            let (held, allowed) = (service.held.clone(), service.allowed.clone());
            actix_web::rt::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    actix_web::rt::spawn(serve(BufReader::new(stream), held.clone(), allowed.clone()));
                }
            });
        }
        service
    }

    fn replicas(&self) -> Vec<&Upstream> {
        self.replicas.iter().collect()
    }

    /// Waits until so many requests were held since the start.
    async fn holds(&self, requests: usize) {
        eventually("the requests are held", Duration::from_secs(20), async || {
            (self.held.load(Ordering::Relaxed) == requests).then_some(())
        })
        .await;
    }
}

async fn serve(mut stream: BufReader<TcpStream>, held: Arc<AtomicUsize>, allowed: Arc<Semaphore>) {
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(stream.read_line(&mut head).await, Ok(1..)) {
                return;
            }
        }
        if head.contains("/held ") {
            held.fetch_add(1, Ordering::Relaxed);
            allowed.acquire().await.unwrap().forget();
        }
        if stream.write_all(OK.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A route to the service `a`.
fn route(name: &str, keys: &str) -> String {
    format!(
        "[[routes]]\nid = \"{name}\"\nprefix = \"/{name}\"\nservice = \"a\"\nhead_timeout_s = 30\n{keys}\n"
    )
}

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n")
}

/// Sends a request, and does not wait for its answer.
async fn send(gateway: &Gateway, request: &str) -> TcpStream {
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

async fn status(gateway: &Gateway, request: &str) -> u16 {
    head_of(&raw(gateway, request).await)
}

#[actix_web::test]
async fn requests_with_a_long_body_and_those_that_wait_take_places_of_their_route_too() {
    let service = Holding::start(1).await;
    let limited = route("b", "max_in_flight = 1\nmax_queue = 0\nprefer_wait = true");
    let gateway = Gateway::with(&limited, &service.replicas()).await;
    let get = request("GET", "/b", "");
    let _first = send(&gateway, &request("GET", "/b/held", "")).await;
    service.holds(1).await;
    let chunked = request("POST", "/b", "transfer-encoding: chunked\r\n") + "1\r\nx\r\n0\r\n\r\n";
    let long = request("POST", "/b", "content-length: 100000\r\n") + "x";
    let waiting = request("POST", "/b", "prefer: wait=5\r\ncontent-length: 0\r\n");
    for second in [&get, &chunked, &long, &waiting] {
        assert_eq!(status(&gateway, second).await, 503, "{second}");
    }
    service.allowed.add_permits(1);
    eventually("there is room again", Duration::from_secs(10), async || {
        (status(&gateway, &get).await == 200).then_some(())
    })
    .await;
    // The body of this one has not ended.
    let upload = request("POST", "/b/held", "transfer-encoding: chunked\r\n") + "1\r\nx\r\n";
    let _upload = send(&gateway, &upload).await;
    service.holds(2).await;
    assert_eq!(status(&gateway, &get).await, 503);
}

#[actix_web::test]
async fn a_request_beyond_the_limit_of_its_route_waits_a_moment_in_the_queue() {
    let service = Holding::start(1).await;
    let gateway = Gateway::with(&route("b", "max_in_flight = 1\nmax_queue = 1"), &service.replicas()).await;
    let _first = send(&gateway, &request("GET", "/b/held", "")).await;
    service.holds(1).await;
    let began = Instant::now();
    assert_eq!(status(&gateway, &request("GET", "/b", "")).await, 503);
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
}

#[actix_web::test]
async fn a_busy_service_refuses_lists_first_then_other_reads_and_what_changes_something_last() {
    // A replica has at most 256 requests, and the service 1,024.
    let service = Holding::start(4).await;
    let text = [
        "connections_per_client = 2000\nrate_burst = 3000\n",
        &route("b", ""),
        &route("front", "priority = \"normal\""),
        &route("bulk", "priority = \"low\""),
        &route("ws", "[routes.websocket]"),
    ]
    .concat();
    let ports = free_ports();
    let gateway = Gateway::start_with(&text, ports, &service.replicas()).await.unwrap();
    all_healthy(&Api::local(ports[1])).await;
    let post = |path: &str| request("POST", path, "content-length: 0\r\n");
    let websocket = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n";
    let websocket = format!("GET /ws HTTP/1.1\r\nhost: h\r\n{websocket}\r\n");
    let (list, read) = (request("GET", "/b", ""), request("GET", "/b/7", ""));
    let expect = async |requests: &[(&str, u16)]| {
        for (request, expected) in requests {
            assert_eq!(status(&gateway, request).await, *expected, "{request}");
        }
    };
    let mut held = Vec::new();
    // More than four fifths.
    while held.len() < 840 {
        held.push(send(&gateway, &post("/b/held")).await);
    }
    service.holds(held.len()).await;
    expect(&[(&list, 503), (&read, 200), (&post("/b"), 200)]).await;
    expect(&[(&request("GET", "/front", ""), 200), (&post("/bulk/1"), 503)]).await;
    expect(&[(&request("GET", "/ws", ""), 503), (&websocket, 200)]).await;
    // More than nine tenths.
    while held.len() < 940 {
        held.push(send(&gateway, &post("/b/held")).await);
    }
    service.holds(held.len()).await;
    expect(&[(&list, 503), (&read, 503), (&post("/b"), 200)]).await;
}
