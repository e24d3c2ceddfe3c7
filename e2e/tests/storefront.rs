//! The shop in a real browser, over the real programs.

#![allow(clippy::unwrap_used, reason = "a test")]

mod storefront {
    pub(crate) mod looks; // contrast, sizes of windows, languages
}

use std::time::Duration;

use e2e::{Browser, PASSWORD, Person, Stack, eventually};
use serde_json::{Value, json};
use shared::testing::Api;
use uuid::Uuid;

const MARKUP: &str = "<img src=x onerror=\"document.title='hacked'\">";

/// Puts the first product in the cart.
async fn add(browser: &Browser) {
    browser.click(".card button").await;
    browser.find(".lines li").await;
}

/// Registers in the cart. Returns the email address.
async fn register(browser: &Browser, name: &str) -> String {
    let email = format!("{}@example.com", Uuid::now_v7());
    browser.fill("#account-name", name).await;
    browser.fill("#account-email", &email).await;
    browser.fill("#account-password", PASSWORD).await;
    browser.click("#account-go").await;
    browser.find("#till").await;
    email
}

async fn want(browser: &Browser, quantity: u32) {
    let script = "const field = document.querySelector('.lines input'); field.value = QUANTITY; field.dispatchEvent(new Event('change'));";
    browser.run(&script.replace("QUANTITY", &quantity.to_string())).await;
}

async fn pay_with(browser: &Browser, card: &str) {
    browser.click(&format!("input[value={card}]")).await;
    browser.click("#pay").await;
}

/// What the API knows of the orders of the person who registered.
async fn orders(api: &Api, email: &str) -> Vec<Value> {
    let person = Person::log_in(api, email, PASSWORD).await;
    person.api.get("/api/orders").await.expect(200)["orders"].as_array().unwrap().clone()
}

/// A browser at the shop, with something in the cart and somebody logged in.
async fn at_the_till(stack: &Stack) -> Option<(Browser, String)> {
    let browser = Browser::start(&stack.public).await?;
    browser.open("/").await;
    add(&browser).await;
    let email = register(&browser, "Ann").await;
    Some((browser, email))
}

#[actix_web::test]
async fn a_customer_buys_sees_the_order_confirmed_finds_it_again_and_cancels_it() {
    let stack = Stack::start().await;
    let Some((browser, email)) = at_the_till(&stack).await else { return };
    browser.picture("till").await;
    pay_with(&browser, "tok_visa").await;
    browser.shows("#state", "paid and confirmed").await;
    for step in ["placed", "approved", "paid"] {
        browser.find(&format!("li.done[data-step={step}]")).await;
    }
    browser.shows("li.done[data-step=paid]", "e2e-").await;
    browser.find("li.now[data-step=shipped]").await;
    browser.picture("shop-order").await;

    browser.open("/shop/orders").await;
    browser.shows("tbody", "Paid and confirmed").await;
    browser.picture("orders").await;
    browser.click("tbody a").await;
    browser.click("#cancel").await;
    browser.shows("dialog", "goes back to your card").await;
    browser.picture("cancel").await;
    browser.click("#cancel-no").await;
    assert_eq!(orders(&stack.public, &email).await[0]["status"], "confirmed");
    browser.click("#cancel").await;
    browser.click("#cancel-yes").await;
    browser.shows("#state", "is back on your card").await;
    assert!(!browser.has("#cancel").await);
    assert_eq!(orders(&stack.public, &email).await[0]["status"], "refunded");
}

#[actix_web::test]
async fn two_clicks_on_pay_make_one_order() {
    let stack = Stack::start().await;
    let Some((browser, email)) = at_the_till(&stack).await else { return };
    browser
        .run(
            "const pay = document.getElementById('pay'); pay.click(); pay.click(); pay.form.requestSubmit();",
        )
        .await;
    browser.shows("#state", "paid and confirmed").await;
    assert_eq!(orders(&stack.public, &email).await.len(), 1);
}

#[actix_web::test]
async fn a_reload_between_the_click_and_its_answer_makes_one_order_and_shows_it() {
    let stack = Stack::start().await;
    let Some((browser, email)) = at_the_till(&stack).await else { return };
    // It is answered after two seconds.
    pay_with(&browser, "tok_slow").await;
    browser.find("#pay[aria-busy=true]").await;
    browser.reload().await;
    browser.shows("#state", "paid and confirmed").await;
    assert_eq!(orders(&stack.public, &email).await.len(), 1);
    browser.open("/").await;
    browser.shows(".sum", "It is empty").await;
}

#[actix_web::test]
async fn killed_replicas_are_not_noticed_while_a_page_waits_for_its_order() {
    let mut stack = Stack::start().await;
    let Some((browser, email)) = at_the_till(&stack).await else { return };
    pay_with(&browser, "tok_capture_flaky").await;
    let live = browser.shows("#live", "order-service/").await;
    let port = stack.replicas("order-service")[0].port;
    let serving = usize::from(!live.contains(&format!("-{port}")));
    stack.kill("order-service", serving);
    let other = stack.replicas("order-service")[1 - serving].port;
    browser.shows("#live", &format!("-{other}")).await;
    browser.shows("#state", "paid and confirmed").await;
    assert_eq!(orders(&stack.public, &email).await.len(), 1);

    stack.kill("storefront", 0);
    for _ in 0..4 {
        browser.reload().await;
        browser.shows("#state", "paid and confirmed").await;
    }
    // The page loads without the catalogue, and shows it when it is back.
    stack.kill("order-service", 1 - serving);
    browser.open("/").await;
    browser.shows("#shelves-state .error", "Request ").await;
    browser.find("#shelves-state button").await;
    browser.picture("unavailable").await;
    stack.restart("order-service", serving);
    eventually("the shelves are back", Duration::from_secs(30), async || {
        (stack.public.try_get("/api/products").await?.status == 200).then_some(())
    })
    .await;
    browser.click("#shelves-state button").await;
    browser.find(".card button").await;
}

#[actix_web::test]
async fn a_log_in_survives_a_reload_and_ends_with_a_log_out_and_no_script_can_read_the_token() {
    let stack = Stack::start_with(&[("ACCESS_TOKEN_TTL", "2s")]).await;
    let Some((browser, email)) = at_the_till(&stack).await else { return };
    let kept = "return document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)";
    browser.reload().await;
    browser.shows(".person", "Ann").await;
    browser.find("#till").await;
    let readable = browser.run(kept).await;
    assert!(
        !readable.as_str().unwrap().contains("refresh") && !readable.as_str().unwrap().contains("eyJ"),
        "{readable}"
    );
    // By now the first tokens have expired.
    pay_with(&browser, "tok_slow").await;
    browser.shows("#state", "paid and confirmed").await;
    browser.click(".who button").await;
    browser.find("#account").await;
    browser.reload().await;
    browser.find("#account").await;

    browser.click("#account-known").await;
    browser.fill("#account-email", &email).await;
    browser.fill("#account-password", "not the right one").await;
    browser.click("#account-go").await;
    let wrong = browser.shows("#account .error", "The address or the password is wrong").await;
    assert!(wrong.contains("Request "), "{wrong}");
    browser.picture("wrong-password").await;
    browser.fill("#account-password", PASSWORD).await;
    browser.click("#account-go").await;
    browser.shows("#state", "paid and confirmed").await;
}

#[actix_web::test]
async fn a_declined_card_and_a_cart_that_is_too_big_are_explained_in_plain_words() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let price = json!({ "amount": 500, "currency": "EUR" });
    let cup = json!({ "sku": "CUP-LAST", "name": "Last cup", "description": "", "price": price, "stock": 1 });
    admin.api.post("/api/products", cup).await.expect(201);
    let Some((browser, email)) = at_the_till(&stack).await else { return };
    want(&browser, 2).await;
    browser.click("#pay").await;
    let told = browser.shows("#till-trouble", "There is less left than you want").await;
    assert!(told.contains("Not enough left: Last cup") && told.contains("Request "), "{told}");
    browser.picture("sold-out").await;
    assert!(orders(&stack.public, &email).await.is_empty());

    want(&browser, 1).await;
    pay_with(&browser, "tok_insufficient_funds").await;
    browser.shows("#state", "There is too little money on the account. You have paid nothing.").await;
    browser.find("li.failed[data-step=approved]").await;
    browser.picture("declined").await;
    browser.open("/shop/orders/01890000-0000-7000-8000-000000000000").await;
    let nowhere = browser.shows("#order .error", "There is no such order").await;
    assert!(nowhere.contains("Request "), "{nowhere}");
}

#[actix_web::test]
async fn products_and_people_that_are_called_like_markup_are_shown_as_text() {
    let stack = Stack::start().await;
    let admin = stack.admin().await;
    let price = json!({ "amount": 500, "currency": "EUR" });
    let bad = json!({ "sku": "BAD", "name": MARKUP, "description": MARKUP, "price": price, "stock": 9 });
    admin.api.post("/api/products", bad).await.expect(201);
    let Some(browser) = Browser::start(&stack.public).await else { return };
    browser.open("/?q=onerror").await;
    add(&browser).await;
    browser.shows(".card h2", MARKUP).await;
    browser.shows(".lines .what", MARKUP).await;
    register(&browser, MARKUP).await;
    browser.shows(".person", MARKUP).await;
    pay_with(&browser, "tok_visa").await;
    browser.shows("#state", "paid and confirmed").await;
    browser.shows("td.what", MARKUP).await;
    browser.open("/shop/orders").await;
    browser.shows("td.what", MARKUP).await;
    browser.open(&format!("/?q={}", "%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D'hacked'%22%3E")).await;
    browser.shows(".card h2", MARKUP).await;
    assert!(!browser.has("img[src=x]").await);
    assert_ne!(browser.run("return document.title").await, "hacked");
}

#[actix_web::test]
async fn a_customer_buys_with_the_keyboard_alone() {
    let stack = Stack::start().await;
    let Some(browser) = Browser::start(&stack.public).await else { return };
    let (tab, enter, space) = ("\u{e004}", "\u{e007}", " ");
    browser.open("/").await;
    browser.find(".card button").await;
    browser.press(tab).await;
    browser.shows(":focus", "Skip to the content").await;
    browser.press("/").await;
    browser.press("teapot").await;
    browser.shows("#found", "Found: 1").await;
    browser.tab_to(".card button").await;
    browser.press("?").await;
    browser.shows("dialog", "next product or order").await;
    browser.press("\u{e00c}").await;
    browser.press("j").await;
    browser.press("k").await;
    browser.press(enter).await;
    browser.find(".lines li").await;
    browser.tab_to("#account-new").await;
    let email = format!("{}@example.com", Uuid::now_v7());
    for (field, text) in [("name", "Ann"), ("email", email.as_str()), ("password", PASSWORD)] {
        browser.tab_to(&format!("#account-{field}")).await;
        browser.press(text).await;
    }
    browser.press(enter).await;
    // The focus moves on to the cards.
    browser.find("#till").await;
    eventually("a card has the focus", Duration::from_secs(10), async || {
        let focused = browser.run("return document.activeElement.value").await;
        (focused == "tok_visa").then_some(())
    })
    .await;
    browser.tab_to("#pay").await;
    browser.press(space).await;
    browser.shows("#state", "paid and confirmed").await;
    browser.tab_to("#cancel").await;
    browser.press(enter).await;
    browser.find("dialog").await;
    browser.press("\u{e00c}").await;
    eventually("Escape closes the question", Duration::from_secs(10), async || {
        (!browser.has("dialog").await).then_some(())
    })
    .await;
    assert_eq!(orders(&stack.public, &email).await[0]["status"], "confirmed");
}
