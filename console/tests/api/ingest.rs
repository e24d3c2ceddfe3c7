use actix_web::http::Method;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use serde_json::{Value, json};
use shared::testing::{Api, eventually};

use crate::harness::{Console, SOON, id, logs, now, span, traces, with_attribute};

const ORDER: &str = "0190f4c0-0000-7000-8000-000000000001";

async fn found(admin: &Api, search: &str) -> Vec<String> {
    let path =
        format!("/api/traces?q={}", search.replace(' ', "%20").replace('>', "%3E").replace('"', "%22"));
    let reply = admin.get(&path).await.expect(200);
    let traces = reply["traces"].as_array().unwrap().iter();
    traces.map(|trace| trace["name"].as_str().unwrap().to_owned()).collect()
}

#[actix_web::test]
async fn a_trace_is_kept_with_all_its_spans_and_log_lines() {
    let console = Console::start().await;
    let admin = console.admin().await;
    let trace = id(32);
    let mut server = span(&trace, "POST /api/orders");
    server["spanId"] = json!("b7ad6b7169203331");
    let mut client = with_attribute(span(&trace, "GET"), "server.address", "user-service");
    client["parentSpanId"] = json!("b7ad6b7169203331");
    client["kind"] = json!(3);
    client["status"] = json!({ "code": 2, "message": "refused" });
    let line = json!({
        "timeUnixNano": now().to_string(), "severityNumber": 13, "body": { "stringValue": "it is late" },
        "traceId": trace, "spanId": "b7ad6b7169203331",
        "attributes": [{ "key": "ms", "value": { "intValue": "7" } }],
    });
    console.send("/v1/logs", &logs("a-service", vec![line])).await.expect(200);
    console.keep(&admin, vec![server, client]).await;
    let shown = eventually("its log line", SOON, async || {
        let shown = admin.get(&format!("/api/traces/{trace}")).await.expect(200);
        (shown["logs"].as_array().unwrap().len() == 1).then_some(shown)
    })
    .await;
    assert_eq!(shown["services"], json!(["a-service"]));
    let spans = shown["spans"].as_array().unwrap();
    let client = spans.iter().find(|span| span["kind"] == "client").unwrap();
    assert_eq!(
        (&client["parent_id"], &client["error"], &client["message"]),
        (&json!("b7ad6b7169203331"), &json!(true), &json!("refused"))
    );
    assert_eq!(client["attributes"], json!({ "server.address": "user-service" }));
    let log = &shown["logs"][0];
    assert_eq!(
        (&log["level"], &log["message"], &log["attributes"]),
        (&json!("warn"), &json!("it is late"), &json!({ "ms": 7 }))
    );
    assert!(log["offset_ms"].as_f64().is_some(), "{log}");
}

#[actix_web::test]
async fn a_search_finds_traces_by_what_one_of_their_spans_is() {
    let console = Console::start().await;
    let admin = console.admin().await;
    let quick = with_attribute(span(&id(32), "GET /api/things"), "http.route", "/api/things");
    let mut slow = with_attribute(span(&id(32), "POST /api/orders"), "http.route", "/api/orders");
    slow["startTimeUnixNano"] = json!((now() - 900_000_000).to_string());
    slow["status"] = json!({ "code": 2 });
    let slow = with_attribute(slow, "order.id", ORDER);
    console.keep(&admin, vec![quick, slow]).await;
    for (search, names) in [
        ("", vec!["GET /api/things", "POST /api/orders"]),
        ("service:a-service", vec!["GET /api/things", "POST /api/orders"]),
        ("service:b-service", vec![]),
        ("status:error", vec!["POST /api/orders"]),
        ("status:ok", vec!["GET /api/things"]),
        ("duration:>200ms", vec!["POST /api/orders"]),
        ("duration:>200ms status:ok", vec![]),
        ("route:/api/th", vec!["GET /api/things"]),
        ("order:0190f4c0", vec!["POST /api/orders"]),
        ("attr.http.route:/api/things", vec!["GET /api/things"]),
        ("things", vec!["GET /api/things"]),
        ("100%", vec![]),
        ("'; DROP TABLE spans; --", vec![]),
    ] {
        let mut found = found(&admin, search).await;
        found.sort();
        assert_eq!(found, names, "{search}");
    }
    let bad = admin.get("/api/traces?q=status:bad").await;
    assert_eq!(bad.expect_problem(400, "invalid_parameter"), ["q"]);
    assert!(bad.body["detail"].as_str().unwrap().contains("status:bad"), "{}", bad.text());
}

#[actix_web::test]
async fn a_list_goes_on_where_it_ended() {
    let console = Console::start().await;
    let admin = console.admin().await;
    let spans = (0..5).map(|number| {
        let mut span = span(&id(32), &format!("GET /{number}"));
        span["startTimeUnixNano"] = json!((now() - 1_000_000_000 * number).to_string());
        span
    });
    console.keep(&admin, spans.collect()).await;
    let (mut names, mut before) = (Vec::new(), String::new());
    loop {
        let page = admin.get(&format!("/api/traces?limit=2{before}")).await.expect(200);
        names.extend(page["traces"].as_array().unwrap().iter().map(|trace| trace["name"].clone()));
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["GET /0", "GET /1", "GET /2", "GET /3", "GET /4"]);
}

#[actix_web::test]
async fn log_lines_are_found_by_level_service_and_words() {
    let console = Console::start().await;
    let admin = console.admin().await;
    let line = |severity: u8, text: &str| {
        json!({ "timeUnixNano": now().to_string(), "severityNumber": severity, "body": { "stringValue": text },
            "attributes": [{ "key": "order_id", "value": { "stringValue": ORDER } }] })
    };
    let lines = vec![line(9, "served"), line(17, "it <b>broke</b>")];
    console.send("/v1/logs", &logs("a-service", lines)).await.expect(200);
    let search = async |text: &str| {
        let page = admin.get(&format!("/api/logs?q={text}")).await.expect(200);
        page["logs"].as_array().unwrap().iter().map(|log| log["message"].clone()).collect::<Vec<_>>()
    };
    eventually("both lines", SOON, async || (search("").await.len() == 2).then_some(())).await;
    for (text, messages) in [
        ("level:warn", vec!["it <b>broke</b>"]),
        ("service:a-service%20served", vec!["served"]),
        ("order:0190f4c0", vec!["it <b>broke</b>", "served"]),
        ("instance:a-service-2", vec![]),
    ] {
        assert_eq!(search(text).await, messages, "{text}");
    }
}

#[actix_web::test]
async fn what_was_kept_is_there_after_a_restart() {
    let console = Console::start().await;
    let (admin, trace) = (console.admin().await, id(32));
    console.keep(&admin, vec![span(&trace, "GET /api/things")]).await;
    let last = id(32);
    console.send("/v1/traces", &traces("a-service", vec![span(&last, "GET /last")])).await.expect(200);
    let console = console.restart().await;
    let admin = console.admin().await;
    console.kept(&admin, &trace).await;
    // It was in the queue when the console ended.
    console.kept(&admin, &last).await;
}

#[actix_web::test]
async fn a_span_that_is_sent_twice_is_kept_once() {
    let console = Console::start().await;
    let (admin, trace) = (console.admin().await, id(32));
    let one = span(&trace, "GET /api/things");
    console.keep(&admin, vec![one.clone()]).await;
    let other = id(32);
    console.keep(&admin, vec![one, span(&other, "GET /other")]).await;
    let shown = console.kept(&admin, &trace).await;
    assert_eq!(shown["spans"].as_array().unwrap().len(), 1);
    let list = admin.get(&format!("/api/traces?q=trace:{trace}")).await.expect(200);
    assert_eq!(list["traces"][0]["spans"], 1);
}

#[actix_web::test]
async fn a_trace_and_its_log_lines_arrive_as_protobuf_too() {
    let console = Console::start().await;
    let (admin, trace) = (console.admin().await, id(32));
    let spans = traces("a-service", vec![span(&trace, "GET /api/things")]);
    let spans: ExportTraceServiceRequest = serde_json::from_value(spans).unwrap();
    let line =
        json!({ "timeUnixNano": now().to_string(), "body": { "stringValue": "served" }, "traceId": trace });
    let lines: ExportLogsServiceRequest = serde_json::from_value(logs("a-service", vec![line])).unwrap();
    for (path, body) in [("/v1/traces", spans.encode_to_vec()), ("/v1/logs", lines.encode_to_vec())] {
        let reply = console.send_protobuf(path, body).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, ""), "{path}");
        assert_eq!(reply.header("content-type"), "application/x-protobuf");
    }
    let shown = eventually("its log line", SOON, async || {
        let shown = console.kept(&admin, &trace).await;
        (shown["logs"].as_array().unwrap().len() == 1).then_some(shown)
    })
    .await;
    assert_eq!(shown["spans"][0]["name"], "GET /api/things");
}

#[actix_web::test]
async fn what_is_no_otlp_is_refused_and_what_is_unknown_in_it_ignored() {
    let console = Console::start().await;
    for (path, body) in [
        ("/v1/traces", json!([])),
        ("/v1/traces", json!([7])),
        ("/v1/traces", traces("a-service", vec![json!({ "traceId": "x" })])),
        ("/v1/logs", json!({ "resourceLogs": {} })),
        ("/v1/logs", logs("a-service", vec![json!({ "body": {} })])),
    ] {
        console.send(path, &body).await.expect_problem(400, "malformed_request");
    }
    let whole = traces("a-service", vec![span(&id(32), "GET /api/things")]);
    let whole: ExportTraceServiceRequest = serde_json::from_value(whole).unwrap();
    let mut whole = whole.encode_to_vec();
    for bad in [&whole[..whole.len() - 1], b"{}", &[0xff; 20]] {
        console.send_protobuf("/v1/traces", bad.to_vec()).await.expect_problem(400, "malformed_request");
    }
    // The unknown field 15.
    whole.extend([15 << 3, 7]);
    assert_eq!(console.send_protobuf("/v1/traces", whole).await.status, 200);
    let mut more = traces("a-service", vec![]);
    more["more"] = json!({ "a": 1 });
    console.send("/v1/traces", &more).await.expect(200);
    for (kind, encoding) in [("text/plain", "identity"), ("application/json", "gzip")] {
        let api = console.otlp.with("content-type", kind).with("content-encoding", encoding);
        let reply = api.send_text(Method::POST, "/v1/traces", "{}").await;
        reply.expect_problem(415, "unsupported_media_type");
    }
    for kind in ["application/json", "application/x-protobuf"] {
        let api = console.otlp.with("content-type", kind);
        let reply = api.send_text(Method::POST, "/v1/traces", "x".repeat(5 * 1024 * 1024)).await;
        reply.expect_problem(413, "body_too_large");
    }
    console.otlp.get("/api/traces").await.expect_problem(404, "not_found");
}

#[actix_web::test]
async fn names_with_markup_are_json_that_no_browser_takes_for_html() {
    let console = Console::start().await;
    let (admin, trace) = (console.admin().await, id(32));
    let bad = "<img src=x onerror=alert(1)>";
    console.keep(&admin, vec![with_attribute(span(&trace, bad), "user.name", bad)]).await;
    for path in [format!("/api/traces/{trace}"), "/api/traces".to_owned()] {
        let reply = admin.get(&path).await;
        assert_eq!(reply.header("content-type"), "application/json", "{path}");
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
        assert!(reply.text().contains(bad), "{path}");
    }
    let shown: Value = admin.get(&format!("/api/traces/{trace}")).await.expect(200);
    assert_eq!(shown["spans"][0]["attributes"]["user.name"], bad);
}
