//! Versions of a service: their shares, a canary, and a mirror.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use shared::testing::{Api, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::OK;
use crate::harness::{Gateway, Upstream, all_healthy, configuration, free_ports, raw};

const BAD: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
const MANY: &str = "rate_per_second = 100000\nrate_burst = 100000\n";

fn routes(versions: &str) -> String {
    MANY.to_owned() + &configuration("") + "[routes.versions]\n" + versions
}

/// Sends these requests on one connection, and returns the number of answers with each status.
async fn send(gateway: &Gateway, requests: usize, headers: impl Fn(usize) -> String) -> (usize, usize) {
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    let (mut good, mut bad) = (0, 0);
    for number in 0..requests {
        let request = format!("GET /a HTTP/1.1\r\nhost: h\r\n{}\r\n", headers(number));
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut head, mut part) = (String::new(), [0; 4096]);
        while !head.contains("\r\n\r\n") {
            let read = client.read(&mut part).await.unwrap();
            assert_ne!(read, 0, "{head}");
            head.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        if head.starts_with("HTTP/1.1 200") {
            good += 1;
            while !head.ends_with("\r\n\r\nok") {
                let read = client.read(&mut part).await.unwrap();
                head.push_str(&String::from_utf8_lossy(&part[..read]));
            }
        } else {
            bad += 1;
            // A problem document: the rest of it is not needed.
            client = TcpStream::connect(gateway.address()).await.unwrap();
        }
    }
    (good, bad)
}

#[actix_web::test]
async fn of_10_000_requests_each_version_gets_its_share_within_one_point() {
    for sticky in [false, true] {
        let (one, two) = (Upstream::answering(OK).of_version("v1"), Upstream::answering(OK).of_version("v2"));
        let header = if sticky { "sticky_header = \"x-customer\"\n" } else { "" };
        let gateway =
            Gateway::in_file(&routes(&format!("weights = {{ v1 = 95, v2 = 5 }}\n{header}")), &[&one, &two])
                .await;
        let (good, _) = send(&gateway, 10_000, |n| format!("x-customer: ann-{n}\r\n")).await;
        assert_eq!(good, 10_000);
        let seen = two.seen().len();
        assert!((400..=600).contains(&seen), "{sticky}: {seen}");
        assert_eq!(one.seen().len() + seen, 10_000);
    }
}

#[actix_web::test]
async fn a_person_of_the_sticky_header_stays_with_one_version() {
    let (one, two) = (Upstream::answering(OK).of_version("v1"), Upstream::answering(OK).of_version("v2"));
    let text = routes("weights = { v1 = 1, v2 = 1 }\nsticky_header = \"x-customer\"\n");
    let ports = free_ports();
    let (gateway, _keys) = Gateway::in_file_with_users(&text, ports, &[&one, &two]).await;
    // A version without a healthy replica leaves its requests to the other.
    all_healthy(&Api::local(ports[1])).await;
    send(&gateway, 200, |n| format!("x-customer: ann-{}\r\n", n % 20)).await;
    for n in 0..20 {
        let of = |upstream: &Upstream| {
            let name = format!("x-customer: ann-{n}\r\n");
            upstream.seen().iter().filter(|request| request.contains(&name)).count()
        };
        assert!([0, 10].contains(&of(&one)) && of(&one) + of(&two) == 10, "{n}");
    }
}

#[actix_web::test]
async fn a_version_without_a_replica_leaves_its_share_to_the_others() {
    let (one, two) = (Upstream::answering(OK).of_version("v1"), Upstream::dead().of_version("v2"));
    let gateway = Gateway::in_file(&routes("weights = { v1 = 1, v2 = 1, v3 = 1 }\n"), &[&one, &two]).await;
    assert_eq!(send(&gateway, 100, |_| String::new()).await, (100, 0));
}

#[actix_web::test]
async fn a_canary_with_errors_is_rolled_back_and_an_admin_tries_again() {
    let (one, two) = (Upstream::answering(OK).of_version("v1"), Upstream::answering(BAD).of_version("v2"));
    let text =
        routes("weights = { v1 = 1 }\n[routes.versions.canary]\nversion = \"v2\"\nsteps = [50, 100]\n");
    let ports = free_ports();
    let (gateway, keys) = Gateway::in_file_with_users(&text, ports, &[&one, &two]).await;
    let admin = Api::local(ports[1]).with_token(keys.user_token(Uuid::now_v7(), &["admin"]));
    let shown = async || admin.get("/routes").await.body["routes"][0]["versions"].clone();
    assert_eq!(
        shown().await,
        json!({ "shares": { "v1": 0.5, "v2": 0.5 }, "canary": { "version": "v2", "state": "step" } })
    );
    let (_, bad) = send(&gateway, 200, |_| String::new()).await;
    assert_eq!(bad, 5, "as many as prove it");
    assert_eq!(
        shown().await,
        json!({ "shares": { "v1": 1.0, "v2": 0.0 }, "canary": { "version": "v2", "state": "rolled_back" } })
    );
    let metrics = admin.get("/metrics").await.text();
    assert!(metrics.contains("gateway_canary_rolled_back{route_id=\"a\"} 1"), "{metrics}");
    assert!(metrics.contains("gateway_version_share{route_id=\"a\",version=\"v1\"} 1"), "{metrics}");
    // A reload that leaves the canary as it is does not start it again.
    std::fs::write(gateway.file(), format!("strip_headers = [\"x-old\"]\n{text}")).unwrap();
    eventually("the file is read again", Duration::from_secs(10), async || {
        let config = admin.get("/config").await.body;
        (config["config"]["strip_headers"][0] == "x-old").then_some(())
    })
    .await;
    assert_eq!(shown().await["canary"]["state"], "rolled_back");
    let set = admin.put("/routes/a/canary", json!({ "percent": 10 })).await;
    assert_eq!((set.status, shown().await["canary"]["state"].as_str()), (200, Some("set")));
    admin.put("/routes/a/canary", json!({ "percent": 101 })).await.expect_problem(422, "validation_failed");
    let nobody = Api::local(ports[1]);
    nobody.put("/routes/a/canary", json!({ "percent": 10 })).await.expect_problem(401, "missing_token");
}

#[actix_web::test]
async fn a_canary_that_crashes_on_reused_connections_is_rolled_back() {
    // The second crash comes after an informational head.
    for last_words in ["", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let one = Upstream::answering(OK).of_version("v1");
        let two = Upstream::crashing_later(OK, last_words).of_version("v2");
        let canary = "[routes.versions.canary]\nversion = \"v2\"\nsteps = [50, 100]\nmin_requests = 6\n";
        let text = routes(&format!("weights = {{ v1 = 1 }}\n{canary}"));
        let ports = free_ports();
        let (gateway, _keys) = Gateway::in_file_with_users(&text, ports, &[&one, &two]).await;
        let admin = Api::local(ports[1]);
        // On one connection, so that one thread of the gateway gets all of them. None may be sent again.
        let post = |last: &str| format!("POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n{last}\r\n");
        let posts = post("").repeat(5) + &post("connection: close\r\n");
        eventually("it is rolled back", Duration::from_secs(10), async || {
            raw(&gateway, &posts).await;
            let routes = admin.get("/routes").await.body;
            (routes["routes"][0]["versions"]["canary"]["state"] == "rolled_back").then_some(())
        })
        .await;
    }
}

#[actix_web::test]
async fn a_request_that_is_refused_takes_no_turn_of_a_version() {
    let (began, begins) = channel::<()>();
    let (release, held) = channel::<()>();
    let (began, held) = (Arc::new(Mutex::new(began)), Arc::new(Mutex::new(held)));
    let upstream = |version| {
        let (began, held) = (began.clone(), held.clone());
        // Answers `/a/held` only when the test says so.
        let reply = move |request: &str| {
            if request.starts_with("GET /a/held ") {
                began.lock().unwrap().send(()).unwrap();
                held.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap_or_default();
            }
            OK
        };
        Upstream::replying(reply).of_version(version)
    };
    let (one, two) = (upstream("v1"), upstream("v2"));
    let limit = "max_in_flight = 1\nmax_queue = 0\n";
    let text =
        MANY.to_owned() + &configuration("") + limit + "[routes.versions]\nweights = { v1 = 1, v2 = 1 }\n";
    let ports = free_ports();
    let (gateway, _keys) = Gateway::in_file_with_users(&text, ports, &[&one, &two]).await;
    all_healthy(&Api::local(ports[1])).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    let mut first = TcpStream::connect(gateway.address()).await.unwrap();
    first.write_all(get("/a/held").as_bytes()).await.unwrap();
    let begins = tokio::task::spawn_blocking(move || begins.recv_timeout(Duration::from_secs(10)));
    begins.await.unwrap().unwrap();
    let refused = raw(&gateway, &get("/a/refused")).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    release.send(()).unwrap();
    first.read_to_end(&mut Vec::new()).await.unwrap();
    let answered = raw(&gateway, &get("/a/next")).await;
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    assert_eq!((one.seen().len(), two.seen().len()), (1, 1), "versions take turns");
}

#[actix_web::test]
async fn copies_for_a_mirror_count_toward_the_memory_of_kept_bodies() {
    let one = Upstream::answering(OK).of_version("v1");
    let stuck = Upstream::hanging().of_version("v2");
    let mirror = "weights = { v1 = 1 }\n[routes.versions.mirror]\nversion = \"v2\"\n";
    // The copies last longer than this test.
    let routes = routes(mirror).replace("head_timeout_s = 1\n", "head_timeout_s = 15\n");
    let (text, ports) = (format!("kept_bodies_mib = 1\n{routes}"), free_ports());
    let (gateway, _keys) = Gateway::in_file_with_users(&text, ports, &[&one, &stuck]).await;
    all_healthy(&Api::local(ports[1])).await;
    // 1 MiB is for sixteen of these.
    let body = "x".repeat(64 * 1024);
    let head = "POST /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 65536\r\n\r\n";
    for _ in 0..24 {
        let answered = raw(&gateway, &format!("{head}{body}")).await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    }
    eventually("the copies arrive", Duration::from_secs(5), async || {
        (stuck.seen().len() >= 16).then_some(())
    })
    .await;
    assert_eq!(stuck.seen().len(), 16);
}

#[actix_web::test]
async fn a_mirror_gets_a_copy_that_is_marked_and_its_answer_is_dropped() {
    let (one, two) = (Upstream::answering(OK).of_version("v1"), Upstream::answering(BAD).of_version("v2"));
    let text = routes("weights = { v1 = 1 }\n[routes.versions.mirror]\nversion = \"v2\"\n");
    let gateway = Gateway::in_file(&text, &[&one, &two]).await;
    let post =
        "POST /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-mirrored: 0\r\ncontent-length: 2\r\n\r\nhi";
    // No copy is sent before the first health check of the version.
    let copy = eventually("the copy", Duration::from_secs(5), async || {
        let answered = raw(&gateway, post).await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
        two.seen().pop()
    })
    .await;
    assert!(copy.ends_with("hi") && copy.contains("\r\nx-mirrored: 1\r\n"), "{copy}");
    assert!(one.seen().iter().all(|request| !request.contains("x-mirrored")), "{:?}", one.seen());
}

#[actix_web::test]
async fn a_mirror_that_hangs_slows_nothing_and_gets_no_more_than_its_bound() {
    let one = Upstream::answering(OK).of_version("v1");
    let stuck = Upstream::hanging().of_version("v2");
    let text =
        routes("weights = { v1 = 1 }\n[routes.versions.mirror]\nversion = \"v2\"\nmax_in_flight = 3\n");
    let gateway = Gateway::in_file(&text, &[&one, &stuck]).await;
    let began = std::time::Instant::now();
    assert_eq!(send(&gateway, 100, |_| String::new()).await, (100, 0));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!((1..=3).contains(&stuck.seen().len()), "{}", stuck.seen().len());
}

#[actix_web::test]
async fn a_canary_whose_answers_break_off_is_rolled_back() {
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok";
    let one = Upstream::answering(OK).of_version("v1");
    let two = Upstream::answering_once(broken).of_version("v2");
    let canary = "weights = { v1 = 1 }\n[routes.versions.canary]\nversion = \"v2\"\nsteps = [50, 100]\n";
    let ports = free_ports();
    let (gateway, _keys) = Gateway::in_file_with_users(&routes(canary), ports, &[&one, &two]).await;
    let admin = Api::local(ports[1]);
    eventually("it is rolled back", Duration::from_secs(10), async || {
        raw(&gateway, "GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
        let routes = admin.get("/routes").await.body;
        (routes["routes"][0]["versions"]["canary"]["state"] == "rolled_back").then_some(())
    })
    .await;
}
