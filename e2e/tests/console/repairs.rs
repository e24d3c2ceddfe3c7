//! What needs a person: a stuck order and a dead letter, mended by clicks.

use actix_web::http::Method;
use e2e::eventually;
use serde_json::{Value, json};
use shared::db::{Db, DbConfig, Migrations, query};
use shared::messages::Event;
use std::time::Duration;

use crate::{at_the_console, id, start};

/// An event as payment-service would send it.
fn event(order: &Value, kind: &str, reason: Option<&str>) -> Event {
    let mut data = json!({ "payment_id": order["payment_id"], "order_id": order["id"] });
    if let Some(reason) = reason {
        data["reason"] = reason.into();
    }
    Event::new("payment-service", kind, id(order), data)
}

#[actix_web::test]
async fn a_stuck_order_is_first_in_the_list_and_is_resumed_by_a_click() {
    let mut stack = start().await;
    let ann = stack.register().await;
    (0..2).for_each(|replica| stack.kill("payment-service", replica));
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    let token = stack.service_token("payment-service", "order-service", None);
    let orders = stack.direct("order-service").with_token(token);
    for event in [
        event(&order, "payment.authorized.v1", None),
        event(&order, "payment.stuck.v1", Some("five times 500")),
    ] {
        orders.send(Method::POST, "/messages", Some(&event.to_json())).await.expect(204);
    }
    ann.order_reaches(&order, "needs_attention").await;

    let Some(browser) = at_the_console(&stack, "/orders").await else { return };
    browser.shows("#attention", "needs attention").await;
    browser.click("#attention tbody a").await;
    browser.shows("li[data-step=capture][data-is=stuck]", "five times 500").await;
    browser.picture("stuck").await;
    browser.click("#do-resume").await;
    browser.shows("dialog", "Nothing is charged twice").await;
    browser.click("#ask-yes").await;
    browser.find("li[data-step=capture]:not([data-is=stuck])").await;
    (0..2).for_each(|replica| stack.restart("payment-service", replica));
    browser.shows("#order-status", "confirmed").await;
    browser.find("li[data-step=confirm][data-is=done]").await;
    browser.shows(".story", "An admin resumed the saga").await;
}

#[actix_web::test]
async fn a_dead_letter_is_shown_with_its_cause_and_replayed() {
    let stack = start().await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    let order = ann.order_reaches(&order, "confirmed").await;
    // A message of which payment-service has given up the sending.
    let lost = event(&order, "payment.stuck.v1", Some("late"));
    let db =
        Db::open(&DbConfig::at(&stack.database_url("payment-service")), Migrations::none()).await.unwrap();
    query(
        "INSERT INTO dead_letters (id, destination, type, subject, event, attempts, last_error, at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(lost.id)
    .bind("order-service".to_owned())
    .bind(lost.kind.clone())
    .bind(lost.subject.clone())
    .bind(lost.to_json())
    .bind(10_i64)
    .bind("503 from order-service".to_owned())
    .bind(shared::db::now())
    .execute(&db)
    .await
    .unwrap();

    let Some(browser) = at_the_console(&stack, "/messages").await else { return };
    browser.shows("tr[data-service=payment-service]", "dead letters").await;
    browser.shows(".letter", "503 from order-service").await;
    browser.click(".letter summary").await;
    browser.shows(".letter pre", id(&order)).await;
    browser.picture("dead-letter").await;
    browser.click(".letter .replay").await;
    browser.shows("dialog", "The audit table records it").await;
    browser.click("#ask-no").await;
    browser.find(".letter").await;
    browser.click(".letter .replay").await;
    browser.click("#ask-yes").await;
    browser.shows("#empty", "No dead letters").await;
    let admin = stack.admin().await;
    let payments = stack.direct("payment-service").with_token(admin.api.token.clone().unwrap());
    let audit = payments.get("/admin/audit").await.expect(200);
    assert!(audit.to_string().contains(&lost.id.to_string()), "{audit}");
    eventually("the message is sent", Duration::from_secs(30), async || {
        let outbox = payments.try_get("/admin/outbox").await?.body;
        (outbox["pending"] == 0).then_some(())
    })
    .await;
}
