//! The access log: fields of a request that was served, and the flag of one that was not.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use log::kv::{Error, Key, Value, VisitSource};
use shared::testing::eventually;
use shared::trace::Current;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use crate::harness::{Gateway, Upstream, raw, read_until};
use crate::site::Site;
use crate::{OK, http2};

pub(crate) type Line = BTreeMap<String, String>;

/// The lines of requests of all tests in this process.
static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "request"
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut fields = Fields(Line::new());
            record.key_values().visit(&mut fields).unwrap();
            let id = Current::with(|current| current.request_id().map(str::to_owned)).flatten();
            fields.0.extend(id.map(|id| ("request_id".to_owned(), id)));
            LINES.lock().unwrap_or_else(PoisonError::into_inner).push(fields.0);
        }
    }

    fn flush(&self) {}
}

struct Fields(Line);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.insert(key.to_string(), value.to_string());
        Ok(())
    }
}

pub(crate) fn record() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_boxed_logger(Box::new(Recorder)).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
}

/// The line of the request for `path`, which only one test asks for.
pub(crate) async fn line(path: &str) -> Line {
    eventually("the request is logged", Duration::from_secs(10), async || {
        let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().find(|line| line.get("path").is_some_and(|logged| logged == path)).cloned()
    })
    .await
}

/// A path of this test alone.
fn path(prefix: &str) -> String {
    format!("{prefix}/{}", Uuid::now_v7())
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[actix_web::test]
async fn a_line_says_who_asked_for_what_and_which_replica_answered_when() {
    record();
    let (bad, good) = (Upstream::dead(), Upstream::answering(OK));
    let (gateway, keys) = Gateway::with_users("", &[&bad, &good]).await;
    let (person, path) = (Uuid::now_v7(), path("/a"));
    let token = keys.user_token(person, &[]);
    eventually("the keys are known", Duration::from_secs(10), async || {
        let warm = format!(
            "GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        raw(&gateway, &warm).await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    let chunked = "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: h\r\nx-request-id: mine\r\nconnection: close\r\nauthorization: Bearer {token}\r\n{chunked}"
    );
    let said = raw(&gateway, &request).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let line = line(&path).await;
    for (field, value) in [
        ("method", "POST"),
        ("route", "/a"),
        ("status", "200"),
        ("request_id", "mine"),
        ("client", "127.0.0.1"),
        ("person", &person.to_string()),
        ("replica", &format!("a/{}", good.authority())),
        ("bytes_in", "5"),
        ("bytes_out", "2"),
    ] {
        assert_eq!(line.get(field).map(String::as_str), Some(value), "{field}: {line:?}");
    }
    let number = |field: &str| line[field].parse::<f64>().unwrap();
    assert!(number("upstream_ms") > 0.0 && number("ms") >= number("upstream_ms"), "{line:?}");
    assert!(number("attempts") >= 1.0 && !line.contains_key("flag"), "{line:?}");
}

#[actix_web::test]
async fn the_flag_says_why_a_request_was_not_served() {
    record();
    let silent = Upstream::serving(|stream| {
        read_until(stream, "\r\n\r\n");
        let _ = std::io::Read::read(stream, &mut [0]);
    });
    let closing = Upstream::serving(|stream| {
        read_until(stream, "\r\n\r\n");
    });
    let garbage = Upstream::serving(|stream| {
        read_until(stream, "\r\n\r\n");
        stream.write_all(b"what?\r\n\r\n").unwrap_or_default();
    });
    let route =
        "[[routes]]\nid = \"b\"\nprefix = \"/b\"\nservice = \"a\"\naccess = \"user\"\nbody_limit_kib = 1\n";
    let get = |path: &str, headers: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n")
    };
    let (none, good) = (Upstream::dead(), Upstream::answering(OK));
    let upward = format!("{}/../x", path("/a"));
    let cases = [
        (&silent, "", post(&path("/a"), ""), 504, &["UT"][..]),
        (&closing, "", post(&path("/a"), ""), 502, &["UC"]),
        (&garbage, "", post(&path("/a"), ""), 502, &["UPE"]),
        // Before or after the first health check.
        (&none, "", post(&path("/a"), ""), 503, &["UF", "UH"]),
        (&good, "", get(&path("/nowhere"), ""), 404, &["NR"]),
        (&good, "", get(&path("/a"), "authorization: Bearer x\r\n"), 401, &["UAEX"]),
        (&good, route, get(&path("/b"), ""), 401, &["UAEX"]),
        (&good, route, post(&path("/b"), &"x".repeat(1025)), 413, &["BL"]),
        (&good, "", get(&upward, ""), 400, &["DPE"]),
    ];
    for (upstream, policies, request, status, flags) in cases {
        let gateway = Gateway::with(policies, &[upstream]).await;
        let said = raw(&gateway, &request).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{flags:?}: {said}");
        let line = line(request.split(' ').nth(1).unwrap()).await;
        assert!(line.get("flag").is_some_and(|flag| flags.contains(&flag.as_str())), "{flags:?}: {line:?}");
        assert_eq!(line.get("client").map(String::as_str), Some("127.0.0.1"), "{flags:?}: {line:?}");
    }
}

#[actix_web::test]
async fn a_refusal_by_a_limit_has_its_own_flag() {
    record();
    let upstream = Upstream::serving(|stream| {
        read_until(stream, "\r\n\r\n");
        let _ = std::io::Read::read(stream, &mut [0]);
    });
    let full = "rate_per_second = 1\nrate_burst = 2\n[[routes]]\nid = \"b\"\nprefix = \"/b\"\nservice = \"a\"\nhead_timeout_s = 1\nmax_in_flight = 1\nmax_queue = 0\n";
    let gateway = Gateway::with(full, &[&upstream]).await;
    let paths = [(); 3].map(|()| path("/b"));
    // The first holds the only place, the second finds none, the third is above the rate.
    let asked = paths.clone().map(|path| post(&path, ""));
    futures_util::future::join_all(asked.iter().map(|request| raw(&gateway, request))).await;
    let mut flags = Vec::new();
    for path in &paths {
        let line = line(path).await;
        assert_eq!(line["route"], "/b", "{line:?}");
        flags.push(line["flag"].clone());
    }
    flags.sort();
    assert_eq!(flags, ["RL", "UO", "UT"]);
}

#[actix_web::test]
async fn an_answer_that_its_client_does_not_wait_for_is_flagged() {
    record();
    let upstream = Upstream::serving(|stream| {
        read_until(stream, "\r\n\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").unwrap_or_default();
        while stream.write_all(&[b'x'; 65536]).is_ok() {}
    });
    let gateway = Gateway::start(&[&upstream]).await;
    let path = path("/a");
    let mut client = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    client.write_all(post(&path, "").as_bytes()).await.unwrap();
    client.read_exact(&mut [0; 1000]).await.unwrap();
    drop(client);
    let line = line(&path).await;
    assert_eq!((line["flag"].as_str(), line["status"].as_str()), ("DC", "200"), "{line:?}");
    let sent: u64 = line["bytes_out"].parse().unwrap();
    assert!((1..100_000_000).contains(&sent), "{line:?}");
}

#[actix_web::test]
async fn a_refused_request_has_its_route_in_the_log_and_in_the_metrics() {
    record();
    let upstream = Upstream::answering(OK);
    let route = |name: &str, keys: &str| {
        format!("[[routes]]\nid = \"{name}\"\nprefix = \"/{name}\"\nservice = \"a\"\n{keys}\n")
    };
    let small = "body_limit_kib = 1\n[routes.cors]\norigins = [\"https://shop.example\"]";
    let routes = route("refused-user", "access = \"user\"") + &route("refused-body", small);
    let ports = crate::harness::free_ports();
    let gateway = Gateway::start_with(&routes, ports, &[&upstream]).await.unwrap();
    let request = |method: &str, path: &str, headers: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n")
    };
    let preflight = "origin: https://shop.example\r\naccess-control-request-method: PUT\r\n";
    let [one, two, three] = ["/refused-user", "/refused-body", "/refused-body"].map(path);
    let cases = [
        (request("GET", &one, ""), &one, "/refused-user", "401"),
        (post(&two, &"x".repeat(1025)), &two, "/refused-body", "413"),
        (request("OPTIONS", &three, preflight), &three, "/refused-body", "204"),
    ];
    let metrics = async || shared::testing::Api::local(ports[1]).get("/metrics").await.text();
    for (request, path, route, status) in cases {
        let said = raw(&gateway, &request).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        let line = line(path).await;
        assert_eq!((line["route"].as_str(), line["status"].as_str()), (route, status), "{line:?}");
        let labels = [format!("http_route=\"{route}\""), format!("status_code=\"{status}\"")];
        let metrics = metrics().await;
        assert!(metrics.lines().any(|line| labels.iter().all(|label| line.contains(label))), "{metrics}");
    }
}

/// The lines so far with this value of a field.
fn lines_with(field: &str, value: &str) -> Vec<Line> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().filter(|line| line.get(field).is_some_and(|logged| logged == value)).cloned().collect()
}

#[actix_web::test]
async fn a_quiet_route_has_one_line_if_a_request_fails_and_else_none() {
    record();
    let upstream = Upstream::replying(|request| match request.contains("/bad ") {
        true => "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n",
        false => OK,
    });
    let prefix = path("/.well-known");
    let route = format!("[[routes]]\nid = \"keys\"\nprefix = \"{prefix}\"\nservice = \"a\"\n");
    let gateway = Gateway::with(&route, &[&upstream]).await;
    let (good, bad) = (format!("{prefix}/good"), format!("{prefix}/bad"));
    for (path, status) in [(&good, 200), (&bad, 429)] {
        let said = raw(&gateway, &post(path, "")).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
    }
    let line = line(&bad).await;
    assert_eq!((line["status"].as_str(), line["client"].as_str()), ("429", "127.0.0.1"), "{line:?}");
    assert_eq!(lines_with("path", &bad).len(), 1);
    assert_eq!(lines_with("path", &good), Vec::<Line>::new());
}

#[actix_web::test]
async fn a_client_that_leaves_before_the_head_is_flagged_and_has_no_status() {
    record();
    let upstream = Upstream::hanging();
    let gateway = Gateway::start(&[&upstream]).await;
    let path = path("/a");
    let mut client = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    client.write_all(post(&path, "").as_bytes()).await.unwrap();
    eventually("the replica has the request", Duration::from_secs(10), async || {
        upstream.seen().iter().any(|request| request.contains(&path)).then_some(())
    })
    .await;
    client.set_zero_linger().unwrap();
    drop(client);
    let line = line(&path).await;
    assert_eq!((line["flag"].as_str(), line.get("status")), ("DC", None), "{line:?}");
    for (field, value) in [("method", "POST"), ("client", "127.0.0.1"), ("attempts", "1")] {
        assert_eq!(line[field], value, "{field}: {line:?}");
    }
    assert_eq!(lines_with("path", &path).len(), 1);
}

#[actix_web::test]
async fn a_head_over_http_2_is_served_whole() {
    record();
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n");
    let site = Site::new();
    site.certify("a", &["a.example"]);
    site.configure("", &[("a", &["a.example"])]);
    let gateway = site.start([0, 0], &[&upstream]).await.unwrap();
    let client = http2::connect(&site, gateway.secure()).await;
    let path = path("/a");
    let request = http::Request::head(format!("https://a.example{path}")).body(()).unwrap();
    let response = http2::ask(&client, request, None).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-length"], "9");
    let line = line(&path).await;
    assert_eq!((line["status"].as_str(), line.get("flag")), ("200", None), "{line:?}");
    assert_eq!(line["bytes_out"], "0", "{line:?}");
}

#[actix_web::test]
async fn a_body_that_breaks_off_is_flagged_with_the_reason() {
    record();
    let garbage = Upstream::serving(|stream| {
        read_until(stream, "\r\n\r\n");
        let said = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nwhat?\r\n";
        stream.write_all(said).unwrap_or_default();
        let _ = std::io::Read::read(stream, &mut [0]);
    });
    let closing = Upstream::serving(|stream| {
        read_until(stream, "\r\n\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello").unwrap_or_default();
    });
    let stalling = Upstream::serving(|stream| {
        read_until(stream, "\r\n\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello").unwrap_or_default();
        // Until the gateway closes the connection.
        stream.set_read_timeout(None).unwrap();
        let _ = std::io::Read::read(stream, &mut [0]);
    });
    let flagged = async |upstream: &Upstream| {
        let gateway = Gateway::start(&[upstream]).await;
        let path = path("/a");
        let mut client = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        client.write_all(post(&path, "").as_bytes()).await.unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap_or_default();
        assert!(said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
        line(&path).await["flag"].clone()
    };
    // The last one takes as long as a response may: 15 s.
    let flags = futures_util::join!(flagged(&garbage), flagged(&closing), flagged(&stalling));
    assert_eq!(flags, ("UPE".to_owned(), "UC".to_owned(), "UT".to_owned()));
}

#[actix_web::test]
async fn a_request_that_no_service_sees_has_the_address_of_its_client() {
    record();
    let upstream = Upstream::answering(OK);
    let site = Site::new();
    site.certify("a", &["a.example"]);
    site.configure("redirect_port = 443", &[("a", &["a.example"])]);
    let redirecting = site.start([0, 0], &[&upstream]).await.unwrap();
    let route = "[[routes]]\nid = \"api\"\nprefix = \"/api/b\"\nservice = \"a\"\n";
    let gateway = Gateway::with(route, &[&upstream]).await;
    let (moved, picky, document) = (path("/a"), path("/api/b"), path("/docs"));
    let get = |path: &str, headers: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n")
    };
    for (gateway, request, path, status) in [
        (&redirecting, get(&moved, ""), &moved, "308"),
        (&gateway, get(&picky, "accept: text/html\r\n"), &picky, "406"),
        (&gateway, get(&document, ""), &document, "404"),
    ] {
        let said = raw(gateway, &request).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        let line = line(path).await;
        assert_eq!((line["status"].as_str(), line["client"].as_str()), (status, "127.0.0.1"), "{line:?}");
    }
    // The connection refuses these, before their path is known.
    let large = format!("GET /a HTTP/1.1\r\nhost: h\r\nx-large: {}\r\n\r\n", "x".repeat(33 * 1024));
    for (request, status) in [("what?\r\n\r\n", "400"), (&large, "431")] {
        let said = raw(&gateway, request).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        let id = said.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
        let line = lines_with("request_id", id).pop().unwrap();
        assert_eq!((line["status"].as_str(), line["client"].as_str()), (status, "127.0.0.1"), "{line:?}");
    }
}
