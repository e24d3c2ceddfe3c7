//! How the pages look and how they read: languages, contrast, windows of every width.

use e2e::{Browser, check_looks};
use serde_json::json;

use crate::{at_the_console, id, log, log_in, start_with};

#[actix_web::test]
async fn every_page_can_be_read_in_light_and_dark_and_fits_windows_from_360_to_2560_pixels() {
    let (stack, collector) = start_with("on").await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    log(&collector, &ann, &order, "two teapots leave the shelf").await;
    let declined = ann.place(&ann.product().await, 1, "tok_declined").await;
    ann.order_reaches(&declined, "rejected").await;
    for (scheme, flag) in [("light", "1"), ("dark", "0")] {
        let flag = format!("--blink-settings=preferredColorScheme={flag}");
        let console = stack.direct("console");
        let Some(browser) = Browser::start_with(&console, &[&flag, "--hide-scrollbars"]).await else {
            return;
        };
        browser.open("/").await;
        browser.click("#login-go").await;
        check_looks(&browser, &format!("{scheme}-console-login")).await;
        log_in(&browser, &stack).await;
        browser.find("svg.map").await;
        check_looks(&browser, &format!("{scheme}-console-map")).await;
        browser.click("#replicas tbody a").await;
        browser.find("#panel-state").await;
        check_looks(&browser, &format!("{scheme}-console-replica")).await;
        for (name, path, ready) in [
            ("route", "/?route=orders".to_owned(), "#strategy"),
            ("orders", "/orders".to_owned(), "#rows a"),
            ("order", format!("/orders/{}", id(&order)), ".story li"),
            ("order-messages", format!("/orders/{}?messages=shown", id(&order)), "#messages-list td"),
            ("declined", format!("/orders/{}", id(&declined)), ".story li"),
            ("traces", "/traces".to_owned(), "#rows a"),
            ("logs", "/logs".to_owned(), "#rows button"),
            ("messages", "/messages".to_owned(), "#services td"),
            ("numbers", "/numbers".to_owned(), "#charts svg"),
            ("lab", "/lab".to_owned(), "#invariants td"),
        ] {
            browser.open(&path).await;
            browser.find(ready).await;
            check_looks(&browser, &format!("{scheme}-console-{name}")).await;
        }
        browser.open("/traces").await;
        browser.click("#rows a").await;
        browser.click(".waterfall button").await;
        check_looks(&browser, &format!("{scheme}-console-trace")).await;
    }
}

#[actix_web::test]
async fn a_chinese_reader_gets_every_page_in_chinese_and_the_choice_is_kept() {
    let (stack, _) = start_with("on").await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    let Some(browser) = at_the_console(&stack, "/orders").await else { return };
    browser.shows("h1", "Orders").await;
    browser.click("a[hreflang=zh-Hans]").await;
    browser.shows("h1", "订单").await;
    assert_eq!(browser.run("return document.documentElement.lang").await, "zh-Hans");
    browser.shows("#rows", "已确认").await;
    for path in ["/", "/traces", "/logs", "/messages", "/numbers", "/lab", "/?route=orders"] {
        browser.open(path).await;
        browser.shows("#sentence", "请求/秒").await;
        browser.find("h2, #q").await;
        let unknown = "return [...document.querySelectorAll('body *')].filter((one) => !one.children.length && /^(map|order|orders|trace|traces|logs|messages|numbers|lab|state|status|step|panel|page)\\.[a-z_.]+$/.test(one.textContent)).map((one) => one.textContent)";
        assert_eq!(browser.run(unknown).await, json!([]), "{path}: a key without a sentence");
    }
    browser.open(&format!("/orders/{}", id(&order))).await;
    browser.shows(".story", "款项已扣").await;
    browser.picture("chinese-order").await;
}
