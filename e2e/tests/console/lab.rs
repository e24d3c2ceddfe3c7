//! The failure lab: faults by a click, and orders that come through all of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use e2e::{Api, PASSWORD, Stack, eventually};
use serde_json::{Value, json};
use shared::lab::LONGEST;
use xtask::Kind;

use crate::{at_the_console, id};

const SOON: Duration = Duration::from_secs(30);

async fn start() -> Stack {
    Stack::start_with(&[("LAB", "on")]).await
}

/// The port with the calls of the lab, for every replica: program and API.
fn labs(stack: &mut Stack) -> Vec<(&'static str, Api)> {
    let admin_port = stack.admin_port.clone();
    let programs = xtask::programs().iter().filter(|program| program.kind != Kind::Tool);
    let names: Vec<_> = programs.map(|program| (program.name, program.kind)).collect();
    let mut labs = Vec::new();
    for (name, kind) in names {
        match kind {
            Kind::Gateway => labs.push((name, admin_port.clone())),
            _ => labs.extend(stack.replicas(name).iter().map(|one| (name, Api::local(one.port)))),
        }
    }
    labs
}

/// A fresh access token. Past faults may still keep replicas out of use for a moment.
async fn token(stack: &Stack, email: &str, password: &str) -> String {
    let body = json!({ "email": email, "password": password });
    let tokens = eventually("a log-in", SOON, async || {
        let reply = stack.public.try_send(Method::POST, "/api/sessions", Some(&body)).await?;
        (reply.status == 201).then_some(reply.body)
    })
    .await;
    tokens["access_token"].as_str().unwrap().to_owned()
}

async fn admin_token(stack: &Stack) -> String {
    let admin = stack.secrets().admin().unwrap();
    let [(_, email), (_, password)] = &admin[..] else { panic!("{admin:?}") };
    token(stack, email, password).await
}

/// The id of the first replica of order-service, as the console's forms have it.
async fn first_order_service(stack: &mut Stack) -> String {
    let port = stack.replicas("order-service")[0].port;
    let seen = stack.admin_port.get("/registry/services/order-service").await.expect(200);
    let instances = seen["instances"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap());
    let mut own = instances.filter(|id| id.ends_with(&format!("-{port}")));
    own.next().unwrap().to_owned()
}

#[actix_web::test]
async fn a_fault_is_started_by_a_click_shown_on_every_page_and_ended_by_another() {
    let mut stack = start().await;
    let replica = first_order_service(&mut stack).await;
    let orders = stack.direct("order-service");
    let Some(browser) = at_the_console(&stack, "/").await else { return };
    browser.click("nav a[data-page=lab]").await;
    browser.shows("h1", "Lab").await;
    let cards = "return document.querySelectorAll('.fault').length";
    browser.find("#start-card_silent").await;
    assert_eq!(browser.run(cards).await, 13);
    browser.click(&format!("#where-slow option[value='order-service/{replica}']")).await;
    browser.click("#start-slow").await;
    browser.shows(&format!("[data-card=slow] [data-running='{replica}']"), "ends").await;
    // What follows may take longer than the fault that the page starts.
    let slow = json!({ "fault": "slow", "seconds": LONGEST });
    orders.with_token(admin_token(&stack).await).post("/lab/faults", slow).await.expect(200);
    browser.picture("lab").await;
    let begun = Instant::now();
    orders.get("/api/products").await.expect(200);
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    browser.open("/messages").await;
    browser.shows("#faults", &format!("Slow answers (order-service · {replica})")).await;
    browser.click("#faults a").await;
    browser.click(&format!("[id='end-slow-{replica}']")).await;
    eventually("the fault is over", SOON, async || (!browser.has("[data-running]").await).then_some(()))
        .await;
    eventually("answers are quick again", SOON, async || {
        let begun = Instant::now();
        orders.get("/api/products").await.expect(200);
        (begun.elapsed() < Duration::from_secs(1)).then_some(())
    })
    .await;
    eventually("the banner is gone", SOON, async || browser.has("#faults[hidden]").await.then_some(())).await;
    browser.click("a[hreflang=zh-Hans]").await;
    browser.shows("h1", "实验室").await;
    browser.shows("[data-card=slow]", "响应缓慢").await;
}

#[actix_web::test]
async fn a_replica_is_killed_by_a_click_and_orders_go_on() {
    let mut stack = start().await;
    let replica = first_order_service(&mut stack).await;
    let ann = stack.register().await;
    let Some(browser) = at_the_console(&stack, "/lab").await else { return };
    let dot = |state: &str| format!("#lab-map svg [data-replica='{replica}']{state}");
    browser.find(&dot("[data-state=healthy]")).await;
    browser.click(&format!("#where-kill option[value='order-service/{replica}']")).await;
    browser.click("#start-kill").await;
    let ended =
        eventually("the process ends", SOON, async || stack.replicas("order-service")[0].try_wait().unwrap())
            .await;
    assert_eq!(ended.code(), Some(137));
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    browser.shows("#sentence", &replica).await;
    // The map beside the faults shows it too.
    browser.find(&dot(":not([data-state=healthy])")).await;
    browser.picture("lab-killed").await;
    stack.restart("order-service", 0);
    browser.shows("#sentence", "all well").await;
}

#[actix_web::test]
async fn every_fault_of_every_program_ends_by_itself_and_all_orders_settle() {
    let mut stack = start().await;
    let labs = labs(&mut stack);
    let admin = admin_token(&stack).await;
    let ann = stack.register().await;
    let product = ann.product().await;
    let (mut offered, mut seen) = (Vec::new(), BTreeSet::new());
    for (program, lab) in &labs {
        let reply = lab.with_token(admin.clone()).get("/lab/faults").await;
        // The other replicas of a service can have the same. The storefront has no admins.
        if seen.insert(*program) && *program != "storefront" {
            let offers = reply.expect(200)["offers"].as_array().unwrap().clone();
            let faults: Vec<_> = offers.into_iter().filter(|fault| *fault != "kill").collect();
            assert!(faults.len() >= 5, "{program}: {faults:?}");
            offered.push((*program, lab, faults));
        }
    }
    let expected: usize = offered.iter().map(|(.., faults)| faults.len()).sum();
    let mut orders = Vec::new();
    for (program, lab, faults) in offered {
        // Access tokens live for five minutes, and all faults together may take longer.
        let lab = lab.with_token(admin_token(&stack).await);
        let ann = stack.public.with_token(token(&stack, &ann.email, PASSWORD).await);
        for fault in faults {
            let body = json!({ "fault": fault, "seconds": 1 });
            lab.send(Method::POST, "/lab/faults", Some(&body)).await.expect(200);
            orders.push(place(&ann, &product).await);
            eventually(&format!("{program}: {fault} ends"), SOON, async || {
                let seen = lab.try_get("/lab/faults").await?.body;
                (seen["running"] == json!([])).then_some(())
            })
            .await;
        }
    }
    assert_eq!(orders.len(), expected, "one order during each fault");
    let ann = stack.public.with_token(token(&stack, &ann.email, PASSWORD).await);
    for order in &orders {
        let settled =
            eventually(&format!("order {} is settled", id(order)), Duration::from_secs(90), async || {
                let order = ann.try_get(&format!("/api/orders/{}", id(order))).await?.body;
                let status = order["status"].as_str()?.to_owned();
                ["confirmed", "rejected"].contains(&status.as_str()).then_some(order)
            })
            .await;
        let is_late =
            ["payment_timeout", "payment_unavailable"].contains(&settled["reason"].as_str().unwrap_or(""));
        assert!(settled["status"] == "confirmed" || is_late, "{settled}");
    }
}

/// Places an order as a good client does: with one key until it gets a response.
async fn place(api: &Api, product: &Value) -> Value {
    let keyed = api.with_key(e2e::key());
    let lines = json!([{ "product_id": product["id"], "quantity": 1 }]);
    let body = json!({ "lines": lines, "payment_token": "tok_visa" });
    eventually("the order is placed", SOON, async || {
        let reply = keyed.try_send(Method::POST, "/api/orders", Some(&body)).await?;
        (reply.status == 201).then_some(reply.body)
    })
    .await
}

#[actix_web::test]
async fn customers_order_while_answers_are_lost_and_every_promise_holds_in_the_end() {
    let mut stack = start().await;
    let replica = first_order_service(&mut stack).await;
    let Some(browser) = at_the_console(&stack, "/lab").await else { return };
    let customers = |count: u32| {
        format!(
            "const slider = document.getElementById('customers-count'); slider.value = {count}; \
             slider.dispatchEvent(new Event('input')); slider.dispatchEvent(new Event('change'))"
        )
    };
    browser.find("#start-lost_answers").await;
    browser.run(&customers(5)).await;
    browser.click(&format!("#where-lost_answers option[value='order-service/{replica}']")).await;
    browser.click("#start-lost_answers").await;
    let orders =
        "return Number(/\\d+/.exec(document.getElementById('customers-figures').textContent)?.[0] ?? 0)";
    eventually("customers order", Duration::from_secs(60), async || {
        (browser.run(orders).await.as_u64()? >= 15).then_some(())
    })
    .await;
    browser.run(&customers(0)).await;
    browser.picture("lab-customers").await;
    let invariants = "return [...document.querySelectorAll('[data-invariant]')].map(({ dataset }) => \
         [dataset.invariant, dataset.state])";
    let checked = "return Number(document.querySelector('[data-invariant=lost] .much').textContent)";
    // The page may still show an answer from before the orders.
    eventually("the orders are checked, and every promise holds", Duration::from_secs(90), async || {
        let invariants = browser.run(invariants).await;
        let holds = invariants.as_array()?.iter().all(|invariant| invariant[1] == "holds");
        let is_complete = invariants.as_array()?.len() >= 20 && browser.run(checked).await.as_u64()? >= 15;
        (holds && is_complete).then_some(())
    })
    .await;
}

#[actix_web::test]
async fn without_the_lab_every_call_of_it_is_404() {
    let mut stack = Stack::start().await;
    let token = stack.admin().await.api.token.clone().unwrap();
    let mut all: Vec<_> = labs(&mut stack).into_iter().map(|(_, api)| api).collect();
    all.extend([stack.public.clone(), stack.direct("console")]);
    for api in all {
        let api = api.with_token(token.clone());
        for (method, path) in [
            (Method::GET, "/lab/faults"),
            (Method::POST, "/lab/faults"),
            (Method::DELETE, "/lab/faults/slow"),
        ] {
            let body = json!({ "fault": "slow", "seconds": 5 });
            api.send(method, path, Some(&body)).await.expect_problem(404, "not_found");
        }
    }
}
