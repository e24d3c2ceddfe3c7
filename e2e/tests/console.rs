//! The console in a real browser, over the real programs.

#![allow(clippy::unwrap_used, reason = "a test")]

mod console {
    pub(crate) mod hostile; // markup in names, nonsensical addresses, other tabs
    pub(crate) mod keyboard; // rows, search, what is open, the order of the focus
    pub(crate) mod lab; // faults that programs do to themselves
    pub(crate) mod lab_clicks; // every fault by a click, also on a running stack
    pub(crate) mod looks; // contrast, sizes of windows, languages
    pub(crate) mod map; // replicas and strategies
    pub(crate) mod newcomer; // the first minute
    pub(crate) mod repairs; // stuck orders and dead letters
}

use std::time::Duration;

use e2e::{Api, Browser, PASSWORD, Person, Stack, eventually, free_ports};
use serde_json::{Value, json};

/// All programs, whose traces and logs the console receives.
pub(crate) async fn start() -> Stack {
    start_with_collector().await.0
}

/// The same, with the port of the console that receives traces and logs.
pub(crate) async fn start_with_collector() -> (Stack, Api) {
    start_with("off").await
}

/// The same, with or without the lab.
pub(crate) async fn start_with(lab: &str) -> (Stack, Api) {
    start_in(&[("LAB", lab)]).await
}

/// The same, with more variables.
pub(crate) async fn start_in(more: &[(&str, &str)]) -> (Stack, Api) {
    let [port] = free_ports();
    let (collector, port) = (Api::local(port), port.to_string());
    let own = [("OTLP_PORT", port.as_str()), ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base.as_str())];
    (Stack::start_with(&[&own, more].concat()).await, collector)
}

/// Sends a log line of order-service, in the trace of the order's first change.
pub(crate) async fn log(collector: &Api, customer: &Person, order: &Value, message: &str) {
    let timeline = customer.api.get(&format!("/api/orders/{}/timeline", id(order))).await.expect(200);
    let nanoseconds = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_string();
    let record = json!({
        "timeUnixNano": nanoseconds,
        "severityNumber": 9,
        "severityText": "INFO",
        "body": { "stringValue": message },
        "traceId": timeline["events"][0]["trace_id"],
    });
    let service = json!([{ "key": "service.name", "value": { "stringValue": "order-service" } }]);
    let logs = json!({ "resourceLogs": [{ "resource": { "attributes": service }, "scopeLogs": [{ "logRecords": [record] }] }] });
    collector.post("/v1/logs", logs).await.expect(200);
}

/// A browser at the page `path`, with the first admin logged in; `None` without Chromium.
pub(crate) async fn at_the_console(stack: &Stack, path: &str) -> Option<Browser> {
    let browser = Browser::start(&stack.direct("console")).await?;
    browser.open(path).await;
    log_in(&browser, stack).await;
    browser.find("#sentence-link").await;
    Some(browser)
}

pub(crate) async fn log_in(browser: &Browser, stack: &Stack) {
    let admin = stack.secrets().admin().unwrap();
    let [(_, email), (_, password)] = &admin[..] else { panic!("{admin:?}") };
    log_in_as(browser, email, password).await;
}

pub(crate) async fn log_in_as(browser: &Browser, email: &str, password: &str) {
    browser.fill("#login-email", email).await;
    browser.fill("#login-password", password).await;
    browser.click("#login-go").await;
}

pub(crate) fn id(order: &Value) -> &str {
    order["id"].as_str().unwrap()
}

#[actix_web::test]
async fn an_admin_logs_in_and_a_customer_gets_nothing_of_the_console() {
    let stack = start().await;
    let console = stack.direct("console");
    for path in
        ["/api/map", "/api/live", "/api/orders", "/api/traces", "/api/logs", "/api/messages", "/api/numbers"]
    {
        console.get(path).await.expect_problem(401, "missing_token");
    }
    let ann = stack.register().await;
    let Some(browser) = Browser::start(&console).await else { return };
    browser.open("/messages").await;
    log_in_as(&browser, &ann.email, "not the right one").await;
    let wrong = browser.shows("#login .error", "The address or the password is wrong").await;
    assert!(wrong.contains("Request"), "{wrong}");
    log_in_as(&browser, &ann.email, PASSWORD).await;
    browser.shows("#login .error", "This account is a customer").await;
    browser.picture("customer").await;
    browser.open("/api/map").await;
    browser.shows("body", "missing_token").await;
    browser.open("/messages").await;
    log_in(&browser, &stack).await;
    // It leads on to the page that was asked for.
    browser.shows("h1", "Messages").await;
    let readable = browser
        .run("return document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
        .await;
    assert!(readable == "{}{}", "{readable}");
    browser.click("#logout").await;
    browser.find("#login").await;
    browser.open("/orders").await;
    browser.find("#login").await;
}

#[actix_web::test]
async fn orders_are_found_by_status_age_and_customer() {
    let stack = start().await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    let Some(browser) = at_the_console(&stack, "/orders").await else { return };
    let row = format!("tr[data-order='{}']", id(&order));
    browser.find(&row).await;
    browser.click("#status option[value=confirmed]").await;
    browser.find(&row).await;
    browser.click("#status option[value=rejected]").await;
    browser.shows("main", "No order is like this").await;
    browser.click("#status option[value='']").await;
    browser.find(&row).await;
    browser.click("#age option[value=minute]").await;
    browser.shows("main", "No order is like this").await;
    browser.click("#age option[value='']").await;
    browser.find(&row).await;
    browser.fill("#q", order["customer_id"].as_str().unwrap()).await;
    browser.click("[role=search] button").await;
    browser.find(&row).await;
}

#[actix_web::test]
async fn from_an_order_two_clicks_lead_to_its_trace_and_a_log_line() {
    let (stack, collector) = start_with_collector().await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 2, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    log(&collector, &ann, &order, "two teapots leave the shelf").await;
    let Some(browser) = at_the_console(&stack, "/orders").await else { return };
    browser.click(&format!("tr[data-order='{}'] a", id(&order))).await;
    browser.shows("#order-status", "confirmed").await;
    for step in ["check", "reserve", "authorize", "capture", "confirm"] {
        browser.find(&format!("li[data-step={step}][data-is=done]")).await;
    }
    browser.shows(".story", "The payment was captured: confirmed").await;
    browser.shows("#payment-status", "captured").await;
    browser.shows("#agreement", "Ledger and card network agree").await;
    browser.picture("order").await;
    browser.click("#to-trace").await;
    browser.find(".waterfall .span button").await;
    let programs = ["gateway", "order-service", "user-service", "payment-service"];
    eventually("the spans of all programs have arrived", Duration::from_secs(30), async || {
        browser.reload().await;
        browser.find(".waterfall .span button").await;
        let text = browser.text().await;
        let words = programs.iter().chain(&["two teapots leave the shelf"]);
        words.copied().all(|word| text.contains(word)).then_some(())
    })
    .await;
    browser.click(".waterfall .log button:has([title='two teapots leave the shelf'])").await;
    browser.shows(".waterfall .log .details:not([hidden])", "order-service").await;
    browser.picture("trace").await;
    browser.click(".waterfall .span button").await;
    browser.shows(".waterfall .span .details", "Duration").await;
}

#[actix_web::test]
async fn from_an_order_one_click_leads_to_its_messages_from_outbox_to_inbox() {
    let mut stack = start().await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    let Some(browser) = at_the_console(&stack, &format!("/orders/{}", id(&order))).await else { return };
    browser.click("#to-messages").await;
    for (kind, way) in [
        ("payment.authorize.v1", "order-service → payment-service"),
        ("payment.authorized.v1", "payment-service → order-service"),
        ("payment.capture.v1", "order-service → payment-service"),
        ("payment.captured.v2", "payment-service → order-service"),
    ] {
        let row = "[...document.querySelectorAll('tr[data-is=handled]')].map((row) => row.innerText)";
        eventually(&format!("{kind} is handled"), Duration::from_secs(10), async || {
            let rows = browser.run(&format!("return {row}")).await;
            let mut rows = rows.as_array().unwrap().iter().filter_map(Value::as_str);
            rows.any(|row| row.contains(kind) && row.contains(way)).then_some(())
        })
        .await;
    }
    // The payload stays visible until it is closed, and has no token.
    browser.click("#messages-list summary").await;
    let payload = browser.shows("#messages-list details[open] pre", id(&order)).await;
    assert!(payload.contains("•••") && !payload.contains("tok_visa"), "{payload}");
    browser.resize(1280, 1240).await;
    browser.picture("order-messages").await;

    // A command waits in the outbox while its receiver is gone.
    (0..2).for_each(|replica| stack.kill("payment-service", replica));
    ann.cancel(&order).await.expect(202);
    browser.shows("#messages-list tr[data-is=waits]", "payment.refund.v1").await;
    browser.find("#messages-list details[open]").await;
    (0..2).for_each(|replica| stack.restart("payment-service", replica));
    browser.shows("#messages-list tr[data-is=handled]:last-child", "payment.refunded.v1").await;
}
