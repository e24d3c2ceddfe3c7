//! How the pages look: languages, contrast, and windows of every width.

use e2e::{Browser, Stack, check_looks as check};
use serde_json::json;

use crate::{add, pay_with, register};

#[actix_web::test]
async fn every_page_can_be_read_in_light_and_dark_and_fits_windows_from_360_to_2560_pixels() {
    let stack = Stack::start_with(&[("LAB", "on")]).await;
    for (scheme, flag) in [("light", "1"), ("dark", "0")] {
        let flag = format!("--blink-settings=preferredColorScheme={flag}");
        let Some(browser) = Browser::start_with(&stack.public, &[&flag, "--hide-scrollbars"]).await else {
            return;
        };
        let is_dark = browser.run("return matchMedia('(prefers-color-scheme: dark)').matches").await;
        assert_eq!(is_dark, scheme == "dark");
        browser.open("/").await;
        add(&browser).await;
        browser.click("#account-go").await;
        check(&browser, &format!("{scheme}-shop")).await;
        register(&browser, "Ann").await;
        check(&browser, &format!("{scheme}-till")).await;
        pay_with(&browser, "tok_visa").await;
        browser.shows("#state", "paid and confirmed").await;
        check(&browser, &format!("{scheme}-order")).await;
        browser.open("/shop/orders").await;
        browser.find("tbody a").await;
        check(&browser, &format!("{scheme}-orders")).await;
        browser.open("/").await;
        add(&browser).await;
        pay_with(&browser, "tok_declined").await;
        browser.shows("#state", "declined").await;
        check(&browser, &format!("{scheme}-declined")).await;
    }
}

#[actix_web::test]
async fn a_chinese_reader_buys_in_chinese_and_the_choice_is_kept() {
    let stack = Stack::start_with(&[("LAB", "on")]).await;
    let Some(browser) = Browser::start(&stack.public).await else { return };
    browser.open("/").await;
    browser.shows("h1", "Everything for tea").await;
    browser.click("a[hreflang=zh-Hans]").await;
    browser.shows("h1", "茶与茶具").await;
    assert_eq!(browser.run("return document.documentElement.lang").await, "zh-Hans");
    add(&browser).await;
    register(&browser, "安").await;
    check(&browser, "chinese-till").await;
    pay_with(&browser, "tok_visa").await;
    browser.shows("#state", "订单已付款并确认").await;
    check(&browser, "chinese-order").await;
    browser.open("/shop/orders").await;
    browser.shows("tbody", "已付款并确认").await;
    let english = "return [...document.querySelectorAll('main *')].map((one) => one.textContent).filter((text) => /error\\.|step\\.|status\\.|told\\./.test(text))";
    assert_eq!(browser.run(english).await, json!([]), "a key without a sentence");
}
