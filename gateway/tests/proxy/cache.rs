//! The cache of answers: what it stores, and that equal requests become one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use shared::testing::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Gateway, Upstream, configuration, raw};

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n")
}

async fn cached(upstream: &Upstream) -> Gateway {
    Gateway::in_file(&(configuration("") + "cache = true\n"), &[upstream]).await
}

/// How often the service was asked for `path`.
fn asked(upstream: &Upstream, path: &str) -> usize {
    upstream.seen().iter().filter(|request| request.contains(&format!(" {path} "))).count()
}

const STORED: &str = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\netag: \"7\"\r\nx-request-id: first\r\ncontent-length: 2\r\n\r\nok";

#[actix_web::test]
async fn an_answer_is_served_again_while_it_is_fresh_with_its_age_and_as_304() {
    let upstream = Upstream::replying(|request| match request.contains("/a/short ") {
        true => "HTTP/1.1 200 OK\r\ncache-control: s-maxage=1\r\ncontent-length: 2\r\n\r\nok",
        false => STORED,
    });
    let gateway = cached(&upstream).await;
    let first = raw(&gateway, &get("/a", "")).await;
    assert!(first.contains("cache-status: gateway; fwd=uri-miss; stored\r\n"), "{first}");
    let second = raw(&gateway, &get("/a", "")).await;
    assert!(
        second.contains("cache-status: gateway; hit\r\n") && second.contains("\r\nage: 0\r\n"),
        "{second}"
    );
    assert!(second.ends_with("\r\n\r\nok") && !second.contains("first"), "{second}");
    let known = raw(&gateway, &get("/a", "if-none-match: \"7\"\r\n")).await;
    assert!(known.starts_with("HTTP/1.1 304") && known.ends_with("\r\n\r\n"), "{known}");
    assert_eq!(asked(&upstream, "/a"), 1);
    raw(&gateway, &get("/a/short", "")).await;
    eventually("it is asked for again", Duration::from_secs(5), async || {
        raw(&gateway, &get("/a/short", "")).await;
        (asked(&upstream, "/a/short") == 2).then_some(())
    })
    .await;
}

#[actix_web::test]
async fn answers_for_another_scheme_are_other_answers() {
    let upstream = Upstream::answering(STORED);
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]\n".to_owned() + &configuration("") + "cache = true\n";
    let gateway = Gateway::in_file(&trusted, &[&upstream]).await;
    for (headers, asked_so_far) in [
        ("x-forwarded-proto: https\r\n", 1),
        ("x-forwarded-proto: http\r\n", 2),
        ("", 2),
        ("x-forwarded-proto: https\r\nx-forwarded-host: other\r\n", 2),
    ] {
        let said = raw(&gateway, &get("/a", headers)).await;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        assert_eq!(asked(&upstream, "/a"), asked_so_far, "{headers}");
    }
}

#[actix_web::test]
async fn what_is_not_for_everybody_is_never_served_again() {
    let upstream = Upstream::replying(|request| match request {
        _ if request.contains("/a/private ") => {
            "HTTP/1.1 200 OK\r\ncache-control: private, max-age=60\r\ncontent-length: 2\r\n\r\nok"
        }
        _ if request.contains("/a/cookie ") => {
            "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nset-cookie: a=b\r\ncontent-length: 2\r\n\r\nok"
        }
        _ if request.contains("/a/star ") => {
            "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nvary: *\r\ncontent-length: 2\r\n\r\nok"
        }
        _ if request.contains("/a/silent ") => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        _ if request.contains("/a/missing ") => {
            "HTTP/1.1 404 Not Found\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n\r\nno"
        }
        _ => STORED,
    });
    let gateway = cached(&upstream).await;
    for path in ["/a/private", "/a/cookie", "/a/star", "/a/silent", "/a/missing"] {
        for _ in 0..2 {
            raw(&gateway, &get(path, "")).await;
        }
        assert_eq!(asked(&upstream, path), 2, "{path}");
    }
    for headers in ["cache-control: no-cache\r\n", "range: bytes=0-1\r\n"] {
        for _ in 0..2 {
            raw(&gateway, &get("/a/own", headers)).await;
        }
    }
    assert_eq!(asked(&upstream, "/a/own"), 4);
    // A bad token is refused before the cache is looked at.
    raw(&gateway, &get("/a", "")).await;
    let refused = raw(&gateway, &get("/a", "authorization: Bearer x\r\n")).await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
}

#[actix_web::test]
async fn answers_of_another_host_query_or_varied_header_are_other_answers() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nvary: accept-language\r\ncontent-length: 2\r\n\r\nok",
    );
    let gateway = cached(&upstream).await;
    let requests = [
        get("/a", ""),
        get("/a?x=1", ""),
        get("/a?x=2", ""),
        get("/a", "").replace("host: h", "host: other"),
        get("/a", "accept-language: de\r\n"),
        get("/a", "accept-language: fr\r\n"),
    ];
    for _ in 0..2 {
        for request in &requests {
            let answered = raw(&gateway, request).await;
            assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
        }
    }
    assert_eq!(upstream.seen().len(), requests.len());
}

#[actix_web::test]
async fn a_request_that_changes_a_resource_ends_its_stored_answer() {
    let upstream = Upstream::answering(STORED);
    let gateway = cached(&upstream).await;
    for _ in 0..2 {
        raw(&gateway, &get("/a/7", "")).await;
        let put = "PUT /a/7 HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi";
        raw(&gateway, put).await;
    }
    assert_eq!(upstream.seen().len(), 4);
}

#[actix_web::test]
async fn without_the_key_of_its_route_nothing_is_stored() {
    let upstream = Upstream::answering(STORED);
    let gateway = Gateway::start(&[&upstream]).await;
    for _ in 0..2 {
        raw(&gateway, &get("/a", "")).await;
    }
    assert_eq!(upstream.seen().len(), 2);
}

/// A service that holds its answers until a test releases them, and counts the requests.
async fn slow(said: &'static str) -> (Upstream, Arc<AtomicUsize>, tokio::sync::watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Upstream::running_at(listener.local_addr().unwrap());
    let (go, told) = tokio::sync::watch::channel(false);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    actix_web::rt::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut told, counted) = (told.clone(), counted.clone());
            actix_web::rt::spawn(async move {
                let mut head = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut head).await {
                    if !head[..length].starts_with(b"GET /health")
                        && !head[..length].starts_with(b"GET /openapi")
                    {
                        counted.fetch_add(1, Ordering::Relaxed);
                        told.wait_for(|go| *go).await.unwrap();
                    }
                    stream.write_all(said.as_bytes()).await.unwrap_or_default();
                }
            });
        }
    });
    (upstream, count, go)
}

async fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[actix_web::test]
async fn a_thousand_concurrent_equal_requests_are_one_request_to_the_service() {
    let (upstream, count, go) = slow(STORED).await;
    let many = "connections_per_client = 2000\nrate_burst = 3000\n".to_owned();
    let gateway = Gateway::in_file(&(many + &configuration("") + "cache = true\n"), &[&upstream]).await;
    let mut clients = Vec::new();
    for _ in 0..1000 {
        let mut client = TcpStream::connect(gateway.address()).await.unwrap();
        client.write_all(get("/a", "").as_bytes()).await.unwrap();
        clients.push(client);
    }
    // All are here when a later request of another URL has its answer, or waits for the service.
    let mut later = TcpStream::connect(gateway.address()).await.unwrap();
    later.write_all(get("/a/later", "").as_bytes()).await.unwrap();
    eventually("both URLs are asked for", Duration::from_secs(20), async || {
        (count.load(Ordering::Relaxed) >= 2).then_some(())
    })
    .await;
    go.send(true).unwrap();
    let answers = join_all(clients.into_iter().map(answer)).await;
    for answered in &answers {
        assert!(answered.starts_with("HTTP/1.1 200") && answered.ends_with("\r\n\r\nok"), "{answered}");
    }
    assert_eq!(count.load(Ordering::Relaxed), 2, "one for each URL");
}

#[actix_web::test]
async fn when_the_first_client_leaves_the_next_one_asks_and_all_are_answered() {
    let (upstream, count, go) = slow(STORED).await;
    let gateway = cached(&upstream).await;
    let ask = async || {
        let mut client = TcpStream::connect(gateway.address()).await.unwrap();
        client.write_all(get("/a", "").as_bytes()).await.unwrap();
        client
    };
    let first = ask().await;
    let counted = async |wanted| {
        eventually("the service is asked", Duration::from_secs(10), async || {
            (count.load(Ordering::Relaxed) == wanted).then_some(())
        })
        .await;
    };
    counted(1).await;
    let others = [ask().await, ask().await, ask().await];
    drop(first);
    go.send(true).unwrap();
    for answered in join_all(others.into_iter().map(answer)).await {
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    }
    assert!(count.load(Ordering::Relaxed) <= 2);
}

#[actix_web::test]
async fn after_a_failure_those_that_waited_get_503_and_the_next_request_asks() {
    let (upstream, count, go) = slow("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n").await;
    // The service has longer than the test.
    let text = configuration("").replace("head_timeout_s = 1", "head_timeout_s = 30") + "cache = true\n";
    let gateway = Gateway::in_file(&text, &[&upstream]).await;
    let ask = async |path: &str| {
        let mut client = TcpStream::connect(gateway.address()).await.unwrap();
        client.write_all(get(path, "").as_bytes()).await.unwrap();
        client
    };
    let clients = [ask("/a").await, ask("/a").await, ask("/a").await, ask("/a").await, ask("/a").await];
    // All are here when a later request of another URL waits for the service.
    let later = ask("/a/later").await;
    eventually("both URLs are asked for", Duration::from_secs(20), async || {
        (count.load(Ordering::Relaxed) >= 2).then_some(())
    })
    .await;
    go.send(true).unwrap();
    let answers = join_all(clients.into_iter().map(answer)).await;
    let of = |status: &str| answers.iter().filter(|answered| answered.starts_with(status)).count();
    assert_eq!((of("HTTP/1.1 500"), of("HTTP/1.1 503")), (1, 4), "{answers:?}");
    assert!(answer(later).await.starts_with("HTTP/1.1 500"));
    assert_eq!(count.load(Ordering::Relaxed), 2);
    assert!(raw(&gateway, &get("/a", "")).await.starts_with("HTTP/1.1 500"));
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

#[actix_web::test]
async fn the_age_of_an_answer_shortens_its_lifetime() {
    let upstream = Upstream::replying(|request| match request.contains("/a/stale ") {
        true => "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nage: 60\r\ncontent-length: 2\r\n\r\nok",
        false => "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nage: 58\r\ncontent-length: 2\r\n\r\nok",
    });
    let gateway = cached(&upstream).await;
    for _ in 0..2 {
        raw(&gateway, &get("/a/stale", "")).await;
    }
    assert_eq!(asked(&upstream, "/a/stale"), 2);
    raw(&gateway, &get("/a", "")).await;
    let second = raw(&gateway, &get("/a", "")).await;
    assert!(second.contains("; hit\r\n") && second.contains("\r\nage: 5"), "{second}");
    eventually("it is asked for again", Duration::from_secs(10), async || {
        raw(&gateway, &get("/a", "")).await;
        (asked(&upstream, "/a") == 2).then_some(())
    })
    .await;
}

#[actix_web::test]
async fn a_reload_ends_what_is_stored() {
    let upstream = Upstream::answering(STORED);
    let gateway = cached(&upstream).await;
    for _ in 0..2 {
        raw(&gateway, &get("/a", "")).await;
    }
    assert_eq!(asked(&upstream, "/a"), 1);
    let text = std::fs::read_to_string(gateway.file()).unwrap();
    std::fs::write(gateway.file(), format!("# Another file.\n{text}")).unwrap();
    eventually("it is asked for again", Duration::from_secs(10), async || {
        raw(&gateway, &get("/a", "")).await;
        (asked(&upstream, "/a") == 2).then_some(())
    })
    .await;
}
