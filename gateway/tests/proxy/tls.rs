//! TLS towards clients.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use shared::testing::skip;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::OK;
use crate::harness::{self, Gateway, Upstream, answer, raw};
use crate::site::{Site, ask, shown, until};

const GET: &str = "GET /a HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";
const A: (&str, &[&str]) = ("a", &["a.example"]);

/// A site with one certificate, for `a.example`.
async fn started(upstreams: &[&Upstream]) -> (Site, Gateway) {
    let site = Site::new();
    site.certify("a", &["a.example"]);
    site.configure("", &[A]);
    let gateway = site.start([0, 0], upstreams).await.unwrap();
    (site, gateway)
}

#[actix_web::test]
async fn the_name_that_a_client_asks_for_picks_the_certificate_and_any_other_gets_the_first() {
    let (site, upstream) = (Site::new(), Upstream::answering(OK));
    let a = site.certify("a", &["a.example", "other.example", "x.y.b.example", "127.0.0.1"]);
    let b = site.certify("b", &["*.b.example"]);
    site.configure("", &[A, ("b", &["*.B.example"])]);
    let gateway = site.start([0, 0], &[&upstream]).await.unwrap();
    for (name, certificate) in [
        ("a.example", &a),
        ("A.example", &a),
        ("x.b.example", &b),
        ("X.B.EXAMPLE", &b),
        ("other.example", &a),
        // A wildcard is for one label.
        ("x.y.b.example", &a),
        // No name is sent with an address.
        ("127.0.0.1", &a),
    ] {
        let mut stream = site.connect(gateway.secure(), name, &[]).await.unwrap();
        assert_eq!(&shown(&stream), certificate, "{name}");
        let answered = ask(&mut stream, GET).await.unwrap();
        assert!(answered.starts_with("HTTP/1.1 200 OK"), "{name}: {answered}");
    }
}

#[actix_web::test]
async fn certificates_are_replaced_under_load_and_no_request_fails() {
    let upstream = Upstream::answering(OK);
    let (site, gateway) = started(&[&upstream]).await;
    let (site, address) = (Arc::new(site), gateway.secure());
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (site, stop, served) = (site.clone(), stop.clone(), served.clone());
            actix_web::rt::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = site.connect(address, "a.example", &[]).await.unwrap();
                    let answered = ask(&mut stream, GET).await.unwrap();
                    assert!(answered.starts_with("HTTP/1.1 200 OK"), "{answered}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let new = site.certify("a", &["a.example"]);
        until("the new certificate is shown", async || {
            shown(&site.connect(address, "a.example", &[]).await.unwrap()) == new
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(served.load(Ordering::Relaxed) > 20, "{served:?}");
}

/// What the admin port says of the configuration.
async fn config(port: u16) -> Value {
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let request = b"GET /config HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, request).unwrap();
        std::io::read_to_string(stream).unwrap()
    });
    answer(&asked.await.unwrap()).1
}

#[actix_web::test]
async fn bad_certificate_files_are_refused_with_the_reason_and_the_old_ones_stay() {
    let (site, upstream) = (Site::new(), Upstream::answering(OK));
    let old = site.certify("a", &["a.example"]);
    site.configure("", &[A]);
    let ports = harness::free_ports();
    let gateway = site.start(ports, &[&upstream]).await.unwrap();
    let refused = async |why: &str| {
        until("it is refused", async || {
            config(ports[1]).await["refused_certificates"].as_str().is_some_and(|said| said.contains(why))
        })
        .await;
        let stream = site.connect(gateway.secure(), "a.example", &[]).await.unwrap();
        assert_eq!(shown(&stream), old, "{why}");
    };
    let metrics = shared::testing::Api::local(ports[1]).text("/metrics").await;
    assert!(metrics.contains("\ntls_certificate_end_timestamp_seconds{peers=\"clients\"} "), "{metrics}");
    let good = std::fs::read_to_string(site.path("a.pem")).unwrap();
    site.write("a.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    refused("a.pem").await;
    site.certify("a", &["another.example"]);
    refused("it is not for a.example").await;
    // The key is of the other one.
    site.write("a.pem", &good);
    refused("it is not the key of").await;
    std::fs::remove_file(site.path("a.key")).unwrap();
    refused("a.key").await;
    let new = site.certify("a", &["a.example"]);
    until("the good one is shown", async || {
        shown(&site.connect(gateway.secure(), "a.example", &[]).await.unwrap()) == new
    })
    .await;
    assert_eq!(config(ports[1]).await["refused_certificates"], Value::Null);
}

#[actix_web::test]
async fn a_gateway_does_not_start_with_a_certificate_that_is_not_for_its_name() {
    let (site, upstream) = (Site::new(), Upstream::answering(OK));
    site.certify("a", &["another.example"]);
    site.configure("", &[A]);
    let Err(why) = site.start([0, 0], &[&upstream]).await else { panic!("it starts") };
    assert!(why.to_string().contains("it is not for a.example"), "{why}");
}

#[actix_web::test]
async fn at_sighup_the_gateway_shows_the_certificates_that_its_file_names_and_refuses_a_bad_file() {
    let (site, upstream) = (Site::new(), Upstream::answering(OK));
    site.certify("a", &["a.example"]);
    let other = site.certify("other", &["a.example"]);
    site.configure("", &[A]);
    let ports = harness::free_ports();
    let gateway = site.start(ports, &[&upstream]).await.unwrap();
    // Its task receives signals once requests are served; until then, one would end this process.
    let hangup = || rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP);
    let mut received = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
    raw(&gateway, GET).await;
    site.configure("", &[("none", &["a.example"])]);
    until("the bad file is refused", async || {
        hangup().unwrap();
        received.recv().await;
        config(ports[1]).await["last_refused"].as_str().is_some_and(|why| why.contains("none.pem"))
    })
    .await;
    site.configure("", &[("other", &["a.example"])]);
    until("the other certificate is shown", async || {
        hangup().unwrap();
        received.recv().await;
        shown(&site.connect(gateway.secure(), "a.example", &[]).await.unwrap()) == other
    })
    .await;
    assert_eq!(config(ports[1]).await["last_refused"], Value::Null);
}

#[actix_web::test]
async fn a_request_without_tls_is_redirected_to_https_unless_it_asks_for_health() {
    let (site, upstream) = (Site::new(), Upstream::answering(OK));
    site.certify("a", &["a.example"]);
    site.configure("redirect_port = 443", &[A]);
    let gateway = site.start([0, 0], &[&upstream]).await.unwrap();
    for (line, location) in [
        ("GET /a?b=c", "https://a.example/a?b=c"),
        ("POST /a", "https://a.example/a"),
        ("GET /docs/", "https://a.example/docs/"),
        ("GET /openapi.json", "https://a.example/openapi.json"),
    ] {
        let request = format!("{line} HTTP/1.1\r\nhost: a.example:80\r\nconnection: close\r\n\r\n");
        let answered = raw(&gateway, &request).await.to_lowercase();
        assert!(answered.starts_with("http/1.1 308 "), "{line}: {answered}");
        assert!(answered.contains(&format!("location: {location}\r\n")), "{line}: {answered}");
    }
    for path in ["/health/live", "/health"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n");
        let answered = raw(&gateway, &request).await;
        assert!(!answered.starts_with("HTTP/1.1 3"), "{path}: {answered}");
    }
    let mut stream = site.connect(gateway.secure(), "a.example", &[]).await.unwrap();
    let answered = ask(&mut stream, GET).await.unwrap();
    assert!(answered.starts_with("HTTP/1.1 200 OK"), "{answered}");
}

#[actix_web::test]
async fn a_request_without_tls_and_without_a_host_is_refused_if_all_are_redirected() {
    let (site, upstream) = (Site::new(), Upstream::answering(OK));
    site.certify("a", &["a.example"]);
    site.configure("redirect_port = 443", &[A]);
    let gateway = site.start([0, 0], &[&upstream]).await.unwrap();
    let answered = raw(&gateway, "GET /a HTTP/1.0\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.0 400") && answered.contains("malformed_request"), "{answered}");
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    let answered = raw(&gateway, "GET /health/live HTTP/1.0\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.0 200"), "{answered}");
    let mut stream = site.connect(gateway.secure(), "a.example", &[]).await.unwrap();
    let answered = ask(&mut stream, "GET /a HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(answered.starts_with("HTTP/1.0 200"), "{answered}");
}

#[actix_web::test]
async fn answers_with_tls_tell_browsers_to_use_https_if_the_file_says_so() {
    let (site, upstream) = (Site::new(), Upstream::answering(OK));
    site.certify("a", &["a.example"]);
    for (line, wanted) in [("", None), ("hsts = \"max-age=300\"", Some("max-age=300"))] {
        site.configure(line, &[A]);
        let gateway = site.start([0, 0], &[&upstream]).await.unwrap();
        for path in ["/a", "/nowhere", "/openapi.json", "/health/live"] {
            let request = GET.replace("/a", path);
            let mut stream = site.connect(gateway.secure(), "a.example", &[]).await.unwrap();
            let secure = ask(&mut stream, &request).await.unwrap().to_lowercase();
            let hsts = secure.lines().find_map(|line| line.strip_prefix("strict-transport-security: "));
            assert_eq!(hsts, wanted, "{path}: {secure}");
            let plain = raw(&gateway, &request).await.to_lowercase();
            assert!(!plain.contains("strict-transport-security"), "{path}: {plain}");
        }
    }
}

#[actix_web::test]
async fn a_service_is_told_whether_the_client_came_with_tls() {
    let upstream = Upstream::answering(OK);
    let (site, gateway) = started(&[&upstream]).await;
    let forged = "GET /a HTTP/1.1\r\nhost: h\r\nx-forwarded-proto: https\r\nforwarded: proto=https\r\nconnection: close\r\n\r\n";
    raw(&gateway, forged).await;
    let mut stream = site.connect(gateway.secure(), "a.example", &[]).await.unwrap();
    ask(&mut stream, &forged.replace("https", "http")).await.unwrap();
    let seen = upstream.seen();
    for (request, proto) in seen.iter().zip(["http", "https"]) {
        let request = request.to_lowercase();
        assert!(request.contains(&format!("x-forwarded-proto: {proto}\r\n")), "{request}");
        assert!(request.contains(&format!("proto={proto}\r\n")), "{request}");
    }
    assert_eq!(seen.len(), 2);
}

#[actix_web::test]
async fn a_client_gets_http_2_if_it_offers_it_and_else_http_1_1() {
    let upstream = Upstream::answering(OK);
    let (site, gateway) = started(&[&upstream]).await;
    for (offered, chosen) in
        [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let stream = site.connect(gateway.secure(), "a.example", offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen, "{offered:?}");
    }
}

#[actix_web::test]
async fn a_client_that_does_not_begin_its_handshake_is_disconnected() {
    let upstream = Upstream::answering(OK);
    let (_site, gateway) = started(&[&upstream]).await;
    let mut client = TcpStream::connect(gateway.secure()).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(10), client.read(&mut [0])).await;
    assert_eq!(read.expect("it stays connected").unwrap_or(0), 0);
}

#[actix_web::test]
async fn curl_speaks_http_2_and_http_1_1_with_the_gateway() {
    let version = Command::new("curl").arg("--version").output().map(|said| said.stdout).unwrap_or_default();
    if !String::from_utf8_lossy(&version).contains("HTTP2") {
        return skip("with curl: it is not here, or has no HTTP/2");
    }
    let upstream = Upstream::answering(OK);
    let (site, gateway) = started(&[&upstream]).await;
    let (port, ca) = (gateway.secure().port(), site.path("ca.pem"));
    for (arguments, wanted) in [
        (&["--http2"][..], "2 200 ok"),
        (&["--http1.1"], "1.1 200 ok"),
        (&["--http1.0"], "1 200 ok"),
        (&["--http2", "-d", "hello"], "2 200 ok"),
        (&["--http2", "-H", "Expect: 100-continue", "-d", "hello"], "2 200 ok"),
    ] {
        let mut curl = Command::new("curl");
        curl.args(["-q", "-sS", "--max-time", "10", "-w", "\n%{http_version} %{http_code} ", "--cacert"])
            .arg(&ca);
        curl.arg("--resolve").arg(format!("a.example:{port}:127.0.0.1")).args(arguments);
        curl.arg(format!("https://a.example:{port}/a")).stdin(std::process::Stdio::null());
        let ran = tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let (body, figures) = said.rsplit_once('\n').unwrap();
        assert_eq!(
            format!("{figures}{body}"),
            wanted,
            "{arguments:?}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
}
