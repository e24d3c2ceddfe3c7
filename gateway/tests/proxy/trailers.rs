//! Trailers, which the gateway drops in both directions (RFC 9110 §6.5.1).

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use actix_web::web::Bytes;
use http::{HeaderMap, Request};

use crate::harness::{Gateway, Upstream, raw, read_until};
use crate::http2::{ask, connect, text};
use crate::site::Site;

const ANSWER: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\nset-cookie: a=b\r\n\r\n";

/// Answers chunked requests with trailers. Returns the requests of each connection.
fn chunked() -> (Upstream, Arc<Mutex<Vec<Vec<String>>>>) {
    let connections = Arc::new(Mutex::new(Vec::new()));
    let seen = connections.clone();
    let upstream = Upstream::serving(move |stream| {
        let (mut stream, seen, number) = {
            let mut all = seen.lock().unwrap();
            all.push(Vec::new());
            (stream.try_clone().unwrap(), seen.clone(), all.len() - 1)
        };
        std::thread::spawn(move || {
            loop {
                let request = read_until(&mut stream, "\r\n0\r\n\r\n");
                if request.is_empty() {
                    return;
                }
                seen.lock().unwrap()[number].push(request.to_lowercase());
                stream.write_all(ANSWER.as_bytes()).unwrap();
            }
        });
    });
    (upstream, connections)
}

/// The requests of all connections, which have no trailers.
fn checked(connections: &Mutex<Vec<Vec<String>>>, requests: usize) {
    let connections = connections.lock().unwrap();
    let seen: Vec<_> = connections.iter().flatten().collect();
    assert_eq!(seen.len(), requests, "{seen:?}");
    for request in seen {
        assert!(request.ends_with("\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), "{request}");
        for gone in ["trailer", "x-check", "\r\nte:"] {
            assert!(!request.contains(gone), "{gone}: {request}");
        }
    }
    // The connections of the gateway's workers are used again.
    assert!(connections.len() < requests, "{connections:?}");
}

#[actix_web::test]
async fn trailers_are_dropped_both_ways_and_the_connections_go_on() {
    let (upstream, connections) = chunked();
    let gateway = Gateway::start(&[&upstream]).await;
    let request = "POST /a HTTP/1.1\r\nhost: h\r\nte: trailers\r\ntrailer: x-check\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-check: 1\r\n\r\n";
    let answered = raw(&gateway, &request.repeat(8)).await.to_lowercase();
    assert_eq!(answered.matches("http/1.1 200 ").count(), 8, "{answered}");
    assert_eq!(answered.matches("2\r\nok\r\n0\r\n\r\n").count(), 8, "{answered}");
    assert!(!answered.contains("trailer") && !answered.contains("x-sum"), "{answered}");
    assert!(!answered.contains("set-cookie"), "{answered}");
    checked(&connections, 8);
}

#[actix_web::test]
async fn trailers_are_dropped_both_ways_with_http_2() {
    let (upstream, connections) = chunked();
    let site = Site::new();
    site.certify("a", &["a.example"]);
    site.configure("", &[("a", &["a.example"])]);
    let gateway = site.start([0, 0], &[&upstream]).await.unwrap();
    let client = connect(&site, gateway.secure()).await;
    for _ in 0..8 {
        let request =
            Request::post("https://a.example/a").header("te", "trailers").header("trailer", "x-check");
        let (response, mut stream) =
            client.clone().ready().await.unwrap().send_request(request.body(()).unwrap(), false).unwrap();
        stream.send_data(Bytes::from_static(b"hi"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-check", "1".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
        let mut response = response.await.unwrap();
        assert!(!response.headers().contains_key("trailer"), "{response:?}");
        let body = response.body_mut();
        assert_eq!(body.data().await.unwrap().unwrap(), "ok");
        while let Some(rest) = body.data().await {
            assert_eq!(rest.unwrap(), "");
        }
        assert_eq!(body.trailers().await.unwrap(), None);
    }
    checked(&connections, 8);
    // Without a body, the client's trailers are all there is.
    let get = Request::get("https://a.example/nowhere").body(()).unwrap();
    assert!(text(ask(&client, get, None).await.unwrap()).await.unwrap().contains("not_found"));
}
