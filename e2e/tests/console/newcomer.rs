//! What a newcomer does first, with the mouse alone. The admin's login is pasted from what `scripts/up` printed.

use std::time::{Duration, Instant};

use e2e::{Browser, eventually};

use crate::{log_in, start_with};

const SOON: Duration = Duration::from_secs(30);

#[actix_web::test]
async fn a_newcomer_buys_kills_a_replica_buys_again_and_sees_why_nothing_broke_by_clicks_alone() {
    let begun = Instant::now();
    let (mut stack, _) = start_with("on").await;
    let Some(browser) = Browser::start(&stack.public).await else { return };
    let buy = async || {
        browser.open("/").await;
        browser.click(".card button").await;
        if browser.find("#account-example, #till").await.tag_name().await.unwrap() == "button" {
            browser.click("#account-example").await;
        }
        browser.click("#till input[value=tok_visa]").await;
        browser.click("#pay").await;
        browser.shows("#state", "paid and confirmed").await;
    };
    buy().await;
    let bought = begun.elapsed();
    browser.picture("newcomer-bought").await;

    let console = stack.direct("console").base;
    browser.client.goto(&format!("{console}/lab")).await.unwrap();
    log_in(&browser, &stack).await;
    let port = stack.replicas("order-service")[0].port;
    browser.click(&format!("#where-kill option[value$='-{port}']")).await;
    browser.click("#start-kill").await;
    let ended =
        eventually("the process ends", SOON, async || stack.replicas("order-service")[0].try_wait().unwrap());
    assert_eq!(ended.await.code(), Some(137));
    let killed = begun.elapsed();

    buy().await;
    browser.shows("li.done[data-step=paid]", "e2e-").await;
    browser.client.goto(&console).await.unwrap();
    browser.shows("#sentence", &format!("-{port}")).await;
    browser.click("#sentence-link").await;
    browser.shows("#panel-title", &format!("-{port}")).await;
    browser.find("#panel-state").await;
    browser.picture("newcomer-killed").await;
    println!(
        "bought after {bought:.1?}, killed after {killed:.1?}, saw why nothing broke after {:.1?}",
        begun.elapsed()
    );
}
