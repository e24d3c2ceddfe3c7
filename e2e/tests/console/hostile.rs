//! What a page must bear: names that are markup, addresses that are nonsense, and other tabs that share its session.

use std::time::Duration;

use actix_web::http::Method;
use e2e::{Browser, PASSWORD, eventually};
use fantoccini::wd::WindowHandle;
use serde_json::json;
use shared::db::{Db, DbConfig, Migrations, query};

use crate::{at_the_console, id, log, log_in, log_in_as, start, start_with_collector};

const MARKUP: &str = "<img src=x onerror=\"document.title='hacked'\">";

#[actix_web::test]
async fn names_like_markup_are_shown_as_text_whoever_sends_them() {
    let (stack, collector) = start_with_collector().await;
    let admin = stack.admin().await;
    let price = json!({ "amount": 500, "currency": "EUR" });
    let bad = json!({ "sku": "BAD", "name": MARKUP, "description": MARKUP, "price": price, "stock": 9 });
    let bad = admin.api.post("/api/products", bad).await.expect(201);
    let ann = stack.register().await;
    ann.api.send(Method::PATCH, "/api/users/me", Some(&json!({ "name": MARKUP }))).await.expect(200);
    let order = ann.place(&bad, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    // Every program may send these.
    log(&collector, &ann, &order, MARKUP).await;
    let span = |id: &str, parent: &str| {
        let attribute = json!([{ "key": MARKUP, "value": { "stringValue": MARKUP } }]);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_string();
        json!({ "traceId": "e".repeat(32), "spanId": id, "parentSpanId": parent, "name": MARKUP, "kind": 2,
            "startTimeUnixNano": now, "endTimeUnixNano": now, "attributes": attribute })
    };
    let (one, other) = ("1".repeat(16), "2".repeat(16));
    // Each is the parent of the other.
    let spans = json!([span(&one, &other), span(&other, &one)]);
    let service = json!([{ "key": "service.name", "value": { "stringValue": MARKUP } }]);
    let traces = json!({ "resourceSpans": [{ "resource": { "attributes": service }, "scopeSpans": [{ "spans": spans }] }] });
    collector.post("/v1/traces", traces).await.expect(200);
    let registry = stack.admin_port.with_token(stack.service_token("order-service", "gateway", None));
    let instance = json!({ "url": "http://127.0.0.1:1", "metadata": { "version": MARKUP } });
    registry.put("/registry/services/order-service/instances/evil", instance).await.expect(200);

    let Some(browser) = at_the_console(&stack, "/orders").await else { return };
    let trace = format!("/traces/{}", "e".repeat(32));
    let (order, messages) =
        (format!("/orders/{}", id(&order)), format!("/orders/{}?messages=shown", id(&order)));
    for (path, place) in [
        ("/", "#replicas"),
        ("/?node=service%3Aorder-service&replica=evil", "#panel-body"),
        ("/orders", "tbody"),
        (order.as_str(), "#order-lines"),
        (messages.as_str(), "#order-lines"),
        ("/traces", "#rows"),
        (trace.as_str(), ".waterfall"),
        ("/logs", "#rows"),
    ] {
        browser.open(path).await;
        browser.shows(place, MARKUP).await;
        nothing_was_run(&browser).await;
    }
    let words = "%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D'hacked'%22%3E";
    for path in ["/traces", "/logs"] {
        browser.open(&format!("{path}?q={words}")).await;
        browser.find("#q").await;
        assert_eq!(browser.run("return document.getElementById('q').value").await, MARKUP);
        nothing_was_run(&browser).await;
    }
}

async fn nothing_was_run(browser: &Browser) {
    assert!(!browser.has("img[src=x]").await);
    assert_ne!(browser.run("return document.title").await, "hacked");
}

#[actix_web::test]
async fn a_trace_of_as_many_spans_as_are_kept_each_below_the_one_before_is_shown() {
    let (stack, collector) = start_with_collector().await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_string();
    let spans: Vec<_> = (1..=2000)
        .map(|number| {
            json!({ "traceId": "d".repeat(32), "spanId": format!("{number:016x}"), "parentSpanId": format!("{:016x}", number - 1),
                "name": format!("call {number}"), "kind": 1, "startTimeUnixNano": now, "endTimeUnixNano": now })
        })
        .collect();
    let service = json!([{ "key": "service.name", "value": { "stringValue": "deep" } }]);
    let traces = json!({ "resourceSpans": [{ "resource": { "attributes": service }, "scopeSpans": [{ "spans": spans }] }] });
    collector.post("/v1/traces", traces).await.expect(200);
    let Some(browser) = at_the_console(&stack, "/traces?q=service:deep").await else { return };
    browser.shows("#rows", "2,000").await;
    browser.click("#rows a").await;
    browser.shows(".waterfall li:nth-child(1500)", "call 1500").await;
}

#[actix_web::test]
async fn a_nonsensical_address_shows_a_page_that_says_so_or_what_it_shows_without() {
    let stack = start().await;
    let Some(browser) = at_the_console(&stack, "/").await else { return };
    for path in ["/orders/%E0%A4%A", "/orders/..%2f..%2fapi", "/traces/nothing"] {
        browser.open(path).await;
        browser.shows("main .error", "There is no such thing here").await;
    }
    let base = &stack.direct("console").base;
    // The path of the second address is `//evil.example`, which alone would be an address of another site.
    for next in ["http://[", "/.//evil.example"] {
        browser.client.goto(&format!("{base}/login?next={next}")).await.unwrap();
        log_in(&browser, &stack).await;
        let address = eventually("the log-in leads on", Duration::from_secs(30), async || {
            let address = browser.client.current_url().await.ok()?;
            (address.path() != "/login").then_some(address)
        });
        assert!(address.await.as_str().starts_with(base), "{next}");
    }
    browser.open("/").await;
    browser.find("#sentence-link").await;
    browser.open("/numbers?from=now&to=then&minutes=x").await;
    browser.find("#charts svg, #charts #empty").await;
    browser.open("/?node=nothing&replica=nobody").await;
    browser.shows("#panel-body", "no longer in the registry").await;
    browser.open("/orders?age=__proto__&lang=__proto__").await;
    browser.find("#empty").await;
}

#[actix_web::test]
async fn a_tab_whose_session_another_tab_has_ended_or_replaced_does_not_go_on_as_before() {
    let stack = start().await;
    let bob = stack.register().await;
    let db = Db::open(&DbConfig::at(&stack.database_url("user-service")), Migrations::none()).await.unwrap();
    let promoted = query("UPDATE users SET is_admin = TRUE WHERE id = $1").bind(bob.id.clone());
    promoted.execute(&db).await.unwrap();
    let Some(browser) = at_the_console(&stack, "/messages").await else { return };
    let first = browser.client.window().await.unwrap();
    let second = browser.client.new_window(true).await.unwrap().handle;
    let to = async |tab: &WindowHandle| browser.client.switch_to_window(tab.clone()).await.unwrap();
    to(&second).await;
    browser.open("/").await;
    browser.click("#logout").await;
    browser.find("#login").await;
    to(&first).await;
    browser.find("#login").await;
    log_in(&browser, &stack).await;
    browser.shows("h1", "Messages").await;
    to(&second).await;
    log_in_as(&browser, &bob.email, PASSWORD).await;
    browser.find("#sentence-link").await;
    to(&first).await;
    eventually("the page is of the person of the session", Duration::from_secs(30), async || {
        let shown = browser.run("return document.querySelector('.person')?.textContent").await;
        (shown == bob.email).then_some(())
    })
    .await;
    browser.shows("h1", "Messages").await;
}
