//! The keyboard: `/` searches, `j` and `k` go through rows, Enter opens, Esc closes, `?` explains.

use std::time::Duration;

use e2e::eventually;
use serde_json::json;

use crate::{at_the_console, id, start, start_with};

const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";

#[actix_web::test]
async fn the_keyboard_searches_walks_through_rows_opens_and_goes_back() {
    let stack = start().await;
    let ann = stack.register().await;
    for _ in 0..3 {
        let order = ann.place(&ann.product().await, 1, "tok_visa").await;
        ann.order_reaches(&order, "confirmed").await;
    }
    let Some(browser) = at_the_console(&stack, "/orders").await else { return };
    browser.find("#rows tr:nth-child(3)").await;
    let row =
        "return [...document.querySelectorAll('#rows tr')].indexOf(document.activeElement.closest('tr'))";
    for (key, at) in [("j", 0), ("j", 1), ("j", 2), ("j", 2), ("k", 1)] {
        browser.press(key).await;
        assert_eq!(browser.run(row).await, at, "after {key}");
    }
    browser.press(ENTER).await;
    browser.find(".story").await;
    browser.press(ESCAPE).await;
    browser.find("#rows tr").await;
    browser.press("?").await;
    browser.shows("dialog", "next row").await;
    browser.press(ESCAPE).await;
    browser.press("/").await;
    browser.press("not an id").await;
    browser.press(ENTER).await;
    browser.shows("[role=search] + .wrong", "not an id").await;
    browser.open("/orders").await;
    browser.find("#rows tr").await;
    browser.tab_to("nav a[data-page=traces]").await;
    browser.press(ENTER).await;
    browser.shows("h1", "Traces").await;
}

#[actix_web::test]
async fn the_keyboard_opens_a_payload_among_the_messages_of_an_order_and_closes_what_was_opened_last() {
    let stack = start().await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    let Some(browser) = at_the_console(&stack, "/orders").await else { return };
    browser.open(&format!("/orders/{}", id(&order))).await;
    browser.tab_to("#to-messages").await;
    browser.press(ENTER).await;
    browser.find("#messages-list tr[data-is=handled] summary").await;
    for key in ["j", "j", "k"] {
        browser.press(key).await;
    }
    browser.press(ENTER).await;
    browser.find("#messages-list tr:first-child details[open] > summary:focus-visible").await;
    browser.press(ESCAPE).await;
    browser.find("#messages-list tr:first-child details:not([open]) > summary:focus").await;
    browser.press(ESCAPE).await;
    browser.find("#to-messages:focus").await;
    assert!(browser.has("#messages[hidden]").await);
    browser.click("#to-messages").await;
    browser.find("#messages-list td").await;
    browser.tab_to("#messages .close").await;
    browser.press(ENTER).await;
    browser.find("#to-messages:focus").await;
    browser.press(ESCAPE).await;
    browser.find("#rows tr").await;
}

#[actix_web::test]
async fn on_every_page_the_keyboard_searches_and_what_is_seen_first_is_reached_first() {
    let (stack, _) = start_with("on").await;
    let Some(browser) = at_the_console(&stack, "/").await else { return };
    for path in ["/", "/orders", "/traces", "/logs", "/messages", "/numbers", "/lab"] {
        browser.open(path).await;
        browser.find("#sentence-link").await;
        browser.find("h2, #q").await;
        browser.press("/").await;
        browser.find("[data-search]:focus-visible").await;
    }
    browser.open("/lab").await;
    browser.find("#start-slow").await;
    browser.press("j").await;
    browser.find(".fault:first-child button:focus-visible").await;
    // For each window: the parts of the page, in the order of the focus, and whether each is above or left of the next.
    let parts = |parent: &str| {
        format!(
            "const all = [...document.querySelector('{parent}').children].filter((one) => one.id !== 'sentence'); \
             const boxes = all.map((one) => one.getBoundingClientRect()); \
             return [all.map((one) => one.id || one.className), boxes.slice(1).every((box, index) => \
             box.top >= boxes[index].bottom || box.left >= boxes[index].right)]"
        )
    };
    for (width, expected) in [
        (1280, ["lab-map", "faults-list", "invariants"]),
        (1600, ["faults-list", "lab-map", "invariants"]),
        (360, ["lab-map", "faults-list", "invariants"]),
    ] {
        browser.resize(width, 900).await;
        // The page moves its parts after the window has its size.
        eventually(&format!("{expected:?} at {width} px"), Duration::from_secs(10), async || {
            (browser.run(&parts(".lab")).await == json!([expected, true])).then_some(())
        })
        .await;
    }
    assert_eq!(browser.run(&parts("#bar")).await, json!([["name", "who", "pages"], true]));
    browser.open("/?route=orders").await;
    browser.find("#strategy").await;
    assert_eq!(browser.run(&parts(".with-panel")).await, json!([["panel", "wide"], true]));
    browser.resize(1280, 900).await;
    assert_eq!(browser.run(&parts(".with-panel")).await, json!([["wide", "panel"], true]));
    assert_eq!(browser.run(&parts("#bar")).await, json!([["name", "pages", "who"], true]));
}
