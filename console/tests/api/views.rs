use actix_web::http::Method;
use serde_json::{Value, json};
use shared::testing::eventually;

use crate::harness::{Console, SOON, id, span, traces, with_attribute};

const ORDER: &str = "0190f4c0-0000-7000-8000-000000000001";
const PAYMENT: &str = "0190f4c0-0000-7000-8000-000000000002";

fn order(status: &str) -> Value {
    json!({ "id": ORDER, "status": status, "customer_id": PAYMENT })
}

/// The gateway, with a healthy replica and an ejected one.
fn with_gateway(console: &Console) {
    let instance = |id: &str, health: &str, reason: Value| {
        json!({ "id": id, "url": "http://127.0.0.1:1", "health": health, "active_requests": 2, "requests": 7,
            "latency_ms": 1.5, "metadata": { "version": "0.1.0", "weight": "3" }, "reason": reason, "until": null, "weight": 0.5 })
    };
    let instances =
        [instance("a-1", "healthy", Value::Null), instance("a-2", "ejected", json!("unreachable"))];
    let services = json!([{ "name": "a-service", "instances": instances }]);
    console.stubs.answer("GET /registry/services", 200, json!({ "services": services }));
    let routes = json!([{ "id": "as", "prefix": "/api/as", "service": "a-service", "strategy": "random",
        "versions": { "shares": { "0.1.0": 0.9, "0.2.0": 0.1 }, "canary": { "version": "0.2.0", "state": "step" } } }]);
    console.stubs.answer("GET /routes", 200, json!({ "routes": routes }));
}

#[actix_web::test]
async fn the_map_shows_replicas_routes_and_the_traffic_of_the_spans() {
    let console = Console::start().await;
    with_gateway(&console);
    console.stubs.answer(
        "GET /admin/sagas",
        200,
        json!({ "sagas": [{ "order_id": ORDER, "state": "stuck" }] }),
    );
    let admin = console.admin().await;
    let trace = id(32);
    let (entrance, mut served) = (span(&trace, "GET /api/as"), span(&trace, "GET /api/as"));
    served["parentSpanId"] = entrance["spanId"].clone();
    console.send("/v1/traces", &traces("gateway", vec![entrance])).await.expect(200);
    console.send("/v1/traces", &traces("a-service", vec![served])).await.expect(200);
    let map = eventually("the traffic", SOON, async || {
        let map = admin.get("/api/map").await.expect(200);
        let edges = map["edges"].as_array().unwrap();
        let is_busy =
            |from: &str| edges.iter().any(|edge| edge["from"] == from && edge["rate"].as_f64() > Some(0.0));
        (is_busy("clients") && is_busy("gateway")).then_some(map)
    })
    .await;
    assert_eq!(map["missing"], json!([]));
    let node =
        |id: &str| map["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).cloned().unwrap();
    let service = node("service:a-service");
    assert_eq!(
        (&service["state"], &service["why"]),
        (&json!("degraded"), &json!("1 of 2 replicas are healthy."))
    );
    assert_eq!(service["replicas"][1]["reason"], "unreachable");
    assert_eq!(service["replicas"][0]["in_flight"], 2);
    let replica = &service["replicas"][0];
    let described = [&replica["version"], &replica["weight"], &replica["slow_start"]];
    assert_eq!(described, [&json!("0.1.0"), &json!(3.0), &json!(0.5)]);
    assert_eq!(map["routes"][0]["strategy"], "random");
    let versions = json!({ "shares": { "0.1.0": 0.9, "0.2.0": 0.1 }, "canary": { "version": "0.2.0", "state": "step" } });
    assert_eq!(map["routes"][0]["versions"], versions);
    let codes: Vec<_> = map["attention"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
    assert_eq!(codes, ["replicas", "stuck_sagas"]);
    assert_eq!(map["edges"][0]["rates"].as_array().unwrap().len(), 90);
}

#[actix_web::test]
async fn stuck_sagas_stay_on_the_map_while_order_service_does_not_answer() {
    let console = Console::start().await;
    with_gateway(&console);
    let stuck = json!({ "sagas": [{ "order_id": ORDER, "state": "stuck" }] });
    console.stubs.answer("GET /admin/sagas", 200, stuck);
    console.stubs.answer("PUT /routes/orders/strategy", 204, json!(null));
    let admin = console.admin().await;
    let attention = async || admin.get("/api/map").await.expect(200)["attention"].clone();
    let before = attention().await;
    console.stubs.answer("GET /admin/sagas", 503, json!({ "code": "unavailable" }));
    // After a change, the console asks everybody again.
    let strategy = json!({ "strategy": "random" });
    admin.send(Method::PUT, "/api/routes/orders/strategy", Some(&strategy)).await;
    assert_eq!(attention().await, before);
    assert!(console.stubs.calls_of("GET /admin/sagas").len() > 1, "they are asked again");
}

#[actix_web::test]
async fn without_the_gateway_the_map_says_so_and_shows_what_was_last_known() {
    let console = Console::start().await;
    let admin = console.admin().await;
    let map = admin.get("/api/map").await.expect(200);
    assert_eq!(map["missing"], json!(["gateway"]));
    with_gateway(&console);
    let whole = eventually("the gateway", SOON, async || {
        let map = admin.get("/api/map").await.expect(200);
        (map["missing"] == json!([])).then_some(map)
    })
    .await;
    console.stubs.answer("GET /routes", 500, json!("internal"));
    let old = eventually("the gateway is away", SOON, async || {
        let map = admin.get("/api/map").await.expect(200);
        (map["missing"] == json!(["gateway"])).then_some(map)
    })
    .await;
    assert_eq!(old["routes"], whole["routes"]);
}

#[actix_web::test]
async fn orders_whose_saga_is_stuck_come_first() {
    let console = Console::start().await;
    let admin = console.admin().await;
    let listed = json!({ "orders": [{ "id": PAYMENT, "status": "confirmed" }], "next_cursor": "next" });
    console.stubs.answer("GET /api/orders", 200, listed);
    let saga = json!({ "order_id": ORDER, "state": "stuck", "step": "capture", "last_error": "no answer" });
    console.stubs.answer("GET /admin/sagas", 200, json!({ "sagas": [saga] }));
    console.stubs.answer(&format!("GET /api/orders/{ORDER}"), 200, order("awaiting_payment"));
    let page = admin.get("/api/orders?status=confirmed&limit=1").await.expect(200);
    assert_eq!(page["attention"], json!([{ "order": order("awaiting_payment"), "saga": saga }]));
    assert_eq!((&page["orders"][0]["saga"], &page["next_cursor"]), (&Value::Null, &json!("next")));
    assert!(
        console
            .stubs
            .calls
            .lock()
            .unwrap()
            .iter()
            .any(|(call, ..)| call == "GET /api/orders?status=confirmed&limit=1")
    );
    let next = admin.get("/api/orders?cursor=next").await.expect(200);
    assert_eq!(next["attention"], json!([]), "on the first page only");
}

#[actix_web::test]
async fn an_order_is_shown_with_its_money_and_traces_and_what_is_missing_is_named() {
    let console = Console::start().await;
    let admin = console.admin().await;
    let (kept, gone) = (id(32), id(32));
    console.keep(&admin, vec![with_attribute(span(&kept, "POST /api/orders"), "order.id", ORDER)]).await;
    let path = format!("/api/orders/{ORDER}");
    admin.get(&path).await.expect_problem(404, "not_found");
    console.stubs.answer(&format!("GET {path}"), 200, order("confirmed"));
    let partial = admin.get(&path).await.expect(200);
    assert_eq!(partial["missing"], json!(["timeline", "saga", "payments", "statement"]));
    let events = json!([
        { "at": "2026-01-01T00:00:00Z", "to": "awaiting_payment", "trace_id": kept },
        { "at": "2026-01-01T00:00:01Z", "to": "confirmed", "trace_id": gone },
    ]);
    console.stubs.answer(&format!("GET {path}/timeline"), 200, json!({ "events": events }));
    console.stubs.answer(
        "GET /admin/sagas",
        200,
        json!({ "sagas": [{ "order_id": ORDER, "state": "stuck" }] }),
    );
    console.stubs.answer("GET /api/payments", 200, json!({ "payments": [{ "id": PAYMENT }] }));
    console.stubs.answer("GET /statement", 200, json!({ "charges": [{ "key": "k" }] }));
    let entries = json!([{ "at": "2", "account": "a" }, { "at": "1", "account": "b" }]);
    console.stubs.answer(
        &format!("GET /admin/payments/{PAYMENT}/entries"),
        200,
        json!({ "entries": entries }),
    );
    let whole = admin.get(&path).await.expect(200);
    assert_eq!(whole["missing"], json!([]));
    assert_eq!(
        whole["traces"],
        json!([
            { "id": gone, "at": "2026-01-01T00:00:01Z", "is_kept": false },
            { "id": kept, "at": "2026-01-01T00:00:00Z", "is_kept": true },
        ])
    );
    assert_eq!(whole["entries"][0]["account"], "b");
    assert_eq!(whole["statement"], json!([{ "key": "k" }]));
    assert_eq!(whole["actions"], json!(["resume", "compensate", "cancel"]));
}

#[actix_web::test]
async fn the_messages_of_an_order_are_joined_from_outbox_to_inbox_and_what_is_missing_is_named() {
    let console = Console::start().await;
    let admin = console.admin().await;
    let path = format!("/api/orders/{ORDER}/messages");
    let nothing = admin.get(&path).await.expect(200);
    assert_eq!(nothing, json!({ "messages": [], "missing": ["order-service", "payment-service"] }));

    let [sent, unsent, forgotten] =
        [3, 4, 5].map(|number| format!("0190f4c0-0000-7000-8000-00000000000{number}"));
    let row = |id: &str, second: u32, sent_at: Value| {
        json!({ "id": id, "type": "payment.authorize.v1", "destination": "payment-service", "sent_at": sent_at,
            "written_at": format!("2026-01-01T00:00:0{second}Z"), "data": { "amount": 7 } })
    };
    let outbox = json!([row(&sent, 1, json!("2026-01-01T00:00:02Z")), row(&unsent, 3, Value::Null)]);
    let subject = format!("GET /admin/messages?subject={ORDER}");
    console.stubs.answer(&subject, 200, json!({ "outbox": outbox, "inbox": [] }));
    let events = json!([
        { "at": "2026-01-01T00:00:00Z", "cause": "order.placed", "message_id": null },
        { "at": "2026-01-01T00:00:01Z", "cause": "payment.authorized", "message_id": forgotten },
    ]);
    console.stubs.answer(&format!("GET /api/orders/{ORDER}/timeline"), 200, json!({ "events": events }));
    let handled = |id: &str| json!({ "id": id, "handled_at": "2026-01-01T00:00:02Z", "failures": 0 });
    let inbox = json!([handled(&sent), handled(&forgotten)]);
    console.stubs.answer("GET /admin/messages", 200, json!({ "outbox": [], "inbox": inbox }));
    let shown = admin.get(&path).await.expect(200);
    assert_eq!(shown["missing"], json!([]));
    // Each stub is both services.
    let messages = shown["messages"].as_array().unwrap();
    let of = |id: &str| messages.iter().find(|message| message["id"] == id).unwrap();
    assert_eq!(messages.iter().filter(|message| message["id"] == sent).count(), 2, "{shown}");
    assert_eq!(of(&sent)["data"], json!({ "amount": 7 }));
    assert_eq!((&of(&sent)["source"], &of(&sent)["received"]), (&json!("order-service"), &handled(&sent)));
    assert_eq!(of(&unsent)["received"], Value::Null);
    let known_by_its_inbox = json!({ "id": forgotten, "type": "payment.authorized",
        "destination": "order-service", "received": handled(&forgotten) });
    assert_eq!(of(&forgotten), &known_by_its_inbox);
    assert_eq!(messages.last().unwrap()["id"], unsent, "the newest is last");
}

#[actix_web::test]
async fn messages_are_shown_of_each_service() {
    let console = Console::start().await;
    let admin = console.admin().await;
    console.stubs.answer("GET /admin/outbox", 200, json!({ "pending": 3, "oldest_age_s": 1.5 }));
    let letter = json!({ "id": ORDER, "type": "payment.authorize.v1", "data": { "amount": 7 } });
    console.stubs.answer("GET /admin/dead-letters", 200, json!({ "dead_letters": [letter] }));
    let messages = admin.get("/api/messages").await.expect(200);
    assert_eq!(messages["missing"], json!([]));
    let service = &messages["services"][0];
    assert_eq!((&service["name"], &service["outbox"]["pending"]), (&json!("order-service"), &json!(3)));
    assert_eq!(service["dead_letters"][0]["data"], json!({ "amount": 7 }));
}

#[actix_web::test]
async fn numbers_are_counted_by_service_and_route() {
    let console = Console::start().await;
    with_gateway(&console);
    let admin = console.admin().await;
    // Half a step ago: the current point is left out.
    let spans = (0..30).map(|_| {
        let mut span = with_attribute(span(&id(32), "GET /api/as"), "http.route", "/api/as");
        let ended = crate::harness::now() - 60_000_000_000;
        span["startTimeUnixNano"] = json!((ended - 10_000_000).to_string());
        span["endTimeUnixNano"] = json!(ended.to_string());
        span
    });
    console.keep(&admin, spans.collect()).await;
    let numbers = admin.get("/api/numbers?minutes=15").await.expect(200);
    let series = numbers["series"].as_array().unwrap();
    let line = series.iter().find(|line| line["route"] == "/api/as").unwrap();
    let rates: f64 = line["rate"].as_array().unwrap().iter().filter_map(Value::as_f64).sum();
    assert!((rates * numbers["step_s"].as_f64().unwrap() - 30.0).abs() < 0.01, "{line}");
    let p50 = line["p50_ms"].as_array().unwrap().iter().find_map(Value::as_f64).unwrap();
    assert!((9.0..11.0).contains(&p50), "{p50}");
    assert_eq!(numbers["missing"], json!(["a-1", "a-2"]), "their metrics cannot be read");
    assert_eq!(admin.get("/api/numbers?minutes=15&route=/no").await.expect(200)["series"], json!([]));
}

#[actix_web::test]
async fn the_map_is_streamed_immediately_and_the_stream_ends_with_the_session() {
    use futures_util::StreamExt as _;

    let console = Console::start().await;
    with_gateway(&console);
    console.stubs.answer("DELETE /api/sessions/current", 204, json!(null));
    let admin = console.admin().await;
    let mut response = admin.request(actix_web::http::Method::GET, "/api/live").send().await.unwrap();
    assert_eq!(response.headers().get("content-type").unwrap(), "text/event-stream");
    let first = response.next().await.unwrap().unwrap();
    assert!(first.starts_with(b"retry: 2000\nevent: map\ndata: {"), "{first:?}");
    admin.delete("/api/session").await;
    let mut last = first;
    while let Some(Ok(more)) = response.next().await {
        last = more;
    }
    assert_eq!(last, "event: session\ndata: {}\n\n");
}
