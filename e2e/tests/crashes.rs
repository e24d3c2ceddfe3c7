//! Programs are killed under load: no request fails, and no money moves twice.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use actix_web::http::Method;
use e2e::{Api, Person, Stack, eventually, key};
use serde_json::{Value, json};
use xtask::services;

/// Customers who read and order until `stop` is set, and their results.
#[derive(Default)]
struct Load {
    stop: Cell<bool>,
    reads: Cell<u32>,
    failed_reads: RefCell<Vec<String>>,
    orders: RefCell<Vec<Value>>,
    failed_orders: RefCell<Vec<String>>,
}

impl Load {
    fn start(person: &Person, product: &Value) -> Rc<Self> {
        let load = Rc::new(Self::default());
        actix_web::rt::spawn(load.clone().read(person.api.clone(), "/api/users/me"));
        actix_web::rt::spawn(load.clone().read(person.api.clone(), "/api/products?limit=5"));
        actix_web::rt::spawn(load.clone().read(person.api.clone(), "/api/payments?limit=5"));
        actix_web::rt::spawn(load.clone().order(person.api.clone(), product.clone()));
        load
    }

    async fn read(self: Rc<Self>, api: Api, path: &str) {
        while !self.stop.get() {
            self.reads.set(self.reads.get() + 1);
            match api.try_get(path).await {
                Some(reply) if reply.status == 200 => {}
                other => self.failed_reads.borrow_mut().push(format!("{path}: {other:?}")),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Repeats a request with the same key only if the answer is `idempotency_in_progress`.
    async fn order(self: Rc<Self>, api: Api, product: Value) {
        let body =
            json!({ "lines": [{ "product_id": product["id"], "quantity": 1 }], "payment_token": "tok_visa" });
        while !self.stop.get() {
            let keyed = api.with_key(key());
            loop {
                match keyed.try_send(Method::POST, "/api/orders", Some(&body)).await {
                    Some(reply) if reply.status == 201 => self.orders.borrow_mut().push(reply.body),
                    Some(reply) if reply.body["code"] == "idempotency_in_progress" => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                    other => self.failed_orders.borrow_mut().push(format!("{other:?}")),
                }
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Checks that every order is confirmed, and that the invariants of money and stock hold.
async fn check_orders_money_and_stock(stack: &Stack, ann: &Person, orders: &[Value]) {
    let card_network = stack.direct("card-network");
    for order in orders {
        ann.order_reaches(order, "confirmed").await;
        let statement =
            card_network.get(&format!("/statement?order_id={}", order["id"].as_str().unwrap())).await;
        let charges = statement.expect(200)["charges"].clone();
        assert_eq!(charges.as_array().map(Vec::len), Some(1), "{charges}");
        assert_eq!(charges[0]["times_captured"], 1, "{charges}");
        assert_eq!(charges[0]["captured"], order["total"]["amount"], "{charges}");
    }
    let admin = stack.admin().await;
    let token = admin.api.token.clone().unwrap();
    let ledger = stack.direct("payment-service").with_token(&token).get("/admin/ledger").await.expect(200);
    assert_eq!(ledger["sum"], 0);
    let stock = stack.direct("order-service").with_token(&token).get("/admin/stock").await.expect(200);
    for product in stock["products"].as_array().unwrap() {
        let of = |name: &str| product[name].as_i64().unwrap();
        assert_eq!(of("on_hand") + of("reserved") + of("sold"), of("initial") + of("adjusted"), "{product}");
    }
}

#[actix_web::test]
async fn killing_any_replica_fails_no_request_and_the_replica_returns() {
    let mut stack = Stack::start().await;
    let ann = stack.register().await;
    let product = ann.product().await;
    let load = Load::start(&ann, &product);
    for service in services().map(|service| service.name) {
        let before = load.orders.borrow().len();
        stack.kill(service, 1);
        eventually("ten more orders without it", Duration::from_secs(20), || async {
            (load.orders.borrow().len() > before + 10).then_some(())
        })
        .await;
        stack.restart(service, 1);
        stack.healthy().await;
    }
    load.stop.set(true);
    let port = stack.replicas("user-service")[1].port;
    eventually("the restarted replica serves requests", Duration::from_secs(20), || async {
        let reply = ann.api.get("/api/users/me").await;
        reply.header("x-served-by").ends_with(&format!("-{port}")).then_some(())
    })
    .await;
    assert!(
        load.failed_reads.borrow().is_empty(),
        "{:?} of {}",
        load.failed_reads.borrow(),
        load.reads.get()
    );
    assert!(load.failed_orders.borrow().is_empty(), "{:?}", load.failed_orders.borrow());
    let orders = load.orders.borrow().clone();
    assert!(orders.len() > 30, "{}", orders.len());
    check_orders_money_and_stock(&stack, &ann, &orders).await;
}

#[actix_web::test]
async fn killing_both_payment_replicas_in_mid_order_loses_no_order_and_charges_no_card_twice() {
    let mut stack = Stack::start().await;
    let ann = stack.register().await;
    let product = ann.product().await;
    let mut orders = Vec::new();
    for token in ["tok_visa", "tok_slow", "tok_flaky", "tok_visa", "tok_capture_flaky", "tok_visa"] {
        orders.push(ann.place(&product, 1, token).await);
    }
    stack.kill("payment-service", 0);
    stack.kill("payment-service", 1);
    orders.push(ann.place(&product, 1, "tok_visa").await);
    stack.restart("payment-service", 0);
    stack.restart("payment-service", 1);
    stack.healthy().await;
    check_orders_money_and_stock(&stack, &ann, &orders).await;
}
