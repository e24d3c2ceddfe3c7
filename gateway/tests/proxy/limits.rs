//! Limits of requests that last long: event streams, uploads, and requests that wait with `Prefer: wait`.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use shared::testing::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::OK;
use crate::harness::{Gateway, Upstream, answer, head_of, raw};

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";

/// Answers `/a/events` with a stream that does not end, and everything else at once.
fn streaming() -> Upstream {
    Upstream::replying(|request| if request.contains("/events") { STREAM } else { OK })
}

/// A request, and what is answered until the first event or the end of the head.
async fn open(gateway: &Gateway, path: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).await.unwrap();
    let (mut text, mut part) = (String::new(), [0; 4096]);
    let reading = async {
        while !text.contains("data: 1") && !text.ends_with("ok") && !text.ends_with('}') {
            let length = stream.read(&mut part).await.unwrap();
            assert_ne!(length, 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&part[..length]));
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap();
    (text, stream)
}

#[actix_web::test]
async fn streams_take_no_slots_of_plain_requests() {
    let upstream = streaming();
    let policies = "connections_per_client = 1000\nstreams_per_client = 1000\nrate_burst = 2000";
    let gateway = Gateway::with(policies, &[&upstream]).await;
    // These are more than the plain requests that a replica gets.
    let mut streams = Vec::new();
    for _ in 0..300 {
        let (said, stream) = open(&gateway, "/a/events").await;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        streams.push(stream);
    }
    let (said, _) = open(&gateway, "/a").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}

#[actix_web::test]
async fn an_address_has_so_many_streams_and_a_closed_one_makes_room() {
    let upstream = streaming();
    let gateway = Gateway::with("streams_per_client = 3", &[&upstream]).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (said, stream) = open(&gateway, "/a/events").await;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        streams.push(stream);
    }
    let (said, _) = open(&gateway, "/a/events").await;
    let (head, body) = answer(&said);
    assert_eq!((head_of(&head), body["code"].as_str()), (429, Some("rate_limited")), "{head}");
    let lower = head.to_lowercase();
    assert!(lower.contains("retry-after: 5") && lower.contains("ratelimit: \"default\";r="), "{head}");
    let (said, _) = open(&gateway, "/a").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    streams.pop();
    eventually("there is room again", Duration::from_secs(20), async || {
        let (said, _) = open(&gateway, "/a/events").await;
        said.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

#[actix_web::test]
async fn a_refused_stream_costs_the_service_nothing_until_its_client_may_come_again() {
    let upstream = streaming();
    let gateway = Gateway::with("streams_per_client = 1", &[&upstream]).await;
    let (said, stream) = open(&gateway, "/a/events").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let asked = || upstream.seen().iter().filter(|request| request.contains("/events")).count();
    for _ in 0..20 {
        let (said, _) = open(&gateway, "/a/events").await;
        assert!(said.starts_with("HTTP/1.1 429") && said.to_lowercase().contains("retry-after: 5"), "{said}");
    }
    assert_eq!(asked(), 2);
    // Another path may be no stream.
    open(&gateway, "/a/events/2").await;
    assert_eq!(asked(), 3);
    // A client that closes a stream need not wait.
    drop(stream);
    eventually("there is room again", Duration::from_secs(4), async || {
        let (said, _) = open(&gateway, "/a/events").await;
        said.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

/// Two routes to the service: `/a`, and `/waits`, which has `Prefer: wait`.
const WAITS: &str = "[[routes]]\nid = \"waits\"\nprefix = \"/waits\"\nservice = \"a\"\nhead_timeout_s = 1\nprefer_wait = true";

fn waiting(path: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: h\r\nprefer: wait=5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
}

#[actix_web::test]
async fn a_preference_to_wait_stretches_time_outs_only_on_a_route_that_says_so() {
    let upstream = Upstream::replying(|_| {
        // The service takes longer than the route's time-out.
        std::thread::sleep(Duration::from_millis(1500));
        OK
    });
    let gateway = Gateway::with(WAITS, &[&upstream]).await;
    let [plain, stretched] = futures_util::future::join_all(
        ["/a", "/waits"].map(async |path| raw(&gateway, &waiting(path)).await),
    )
    .await
    .try_into()
    .unwrap();
    assert!(plain.starts_with("HTTP/1.1 504"), "{plain}");
    assert!(stretched.starts_with("HTTP/1.1 200"), "{stretched}");
}

#[actix_web::test]
async fn beyond_so_many_waiting_requests_the_preference_is_dropped() {
    let (arrived, arrives) = channel::<()>();
    let (answer_now, held) = channel::<()>();
    let (arrived, held) = (Mutex::new(arrived), Mutex::new(held));
    // Answers a request that wants to wait only when the test says so.
    let upstream = Upstream::replying(move |request| {
        if request.contains("prefer: ") {
            arrived.lock().unwrap().send(()).unwrap();
            held.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        }
        OK
    });
    let gateway = Gateway::with(&format!("waits_per_client = 1\n{WAITS}"), &[&upstream]).await;
    let mut first = TcpStream::connect(gateway.address()).await.unwrap();
    first.write_all(waiting("/waits").as_bytes()).await.unwrap();
    let arrival = tokio::task::spawn_blocking(move || arrives.recv_timeout(Duration::from_secs(10)));
    arrival.await.unwrap().unwrap();
    let second = raw(&gateway, &waiting("/waits")).await;
    assert!(second.starts_with("HTTP/1.1 200"), "{second}");
    let seen = upstream.seen();
    assert!(!seen[0].contains("prefer: "), "{seen:?}");
    answer_now.send(()).unwrap();
    let mut said = String::new();
    first.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(upstream.seen()[1].contains("prefer: wait=5"));
}

#[actix_web::test]
async fn waiting_requests_take_no_slots_of_plain_requests() {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let upstream = Upstream::replying(move |request| {
        if request.contains("prefer: ") {
            held.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap_or_default();
        }
        OK
    });
    let policies = "connections_per_client = 1000\nwaits_per_client = 1000\nrate_burst = 2000";
    let gateway = Gateway::with(&format!("{policies}\n{WAITS}"), &[&upstream]).await;
    // These are more than the plain requests that a replica gets.
    let mut clients = Vec::new();
    for _ in 0..300 {
        let mut client = TcpStream::connect(gateway.address()).await.unwrap();
        client.write_all(waiting("/waits").as_bytes()).await.unwrap();
        clients.push(client);
    }
    let (said, _) = open(&gateway, "/a").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    drop(release);
}

#[actix_web::test]
async fn bodies_that_do_not_end_take_no_places_of_other_requests() {
    let upstream = streaming();
    let gateway = Gateway::with("uploads_per_client = 10", &[&upstream]).await;
    let mut uploads = Vec::new();
    for length in [100, 100_000].repeat(10) {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let head = format!("POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\nx");
        stream.write_all(head.as_bytes()).await.unwrap();
        uploads.push(stream);
    }
    let first_line = async |stream: &mut TcpStream| {
        let mut said = [0; 12];
        stream.read_exact(&mut said).await.unwrap();
        String::from_utf8_lossy(&said).into_owned()
    };
    let answers = futures_util::future::join_all(uploads.iter_mut().map(first_line)).await;
    // The others get 408 in the end.
    assert_eq!(answers.iter().filter(|answer| *answer == "HTTP/1.1 429").count(), 10, "{answers:?}");
    let (said, _) = open(&gateway, "/a").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}
