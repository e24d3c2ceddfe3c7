//! The whole system with NATS between the services.

#![allow(clippy::unwrap_used, reason = "a test")]

use e2e::Stack;
use shared::testing::nats_url;

#[actix_web::test]
async fn orders_are_confirmed_over_nats_even_if_the_receivers_were_killed() {
    let Some(url) = nats_url() else { return };
    let mut stack = Stack::start_with(&[("MESSAGES_URL", &url)]).await;
    for service in ["order-service", "payment-service"] {
        let health = stack.direct(service).get("/health").await.expect(200);
        assert_eq!((&health["status"], &health["checks"]["nats"]), (&"ok".into(), &"ok".into()));
    }
    let ann = stack.register().await;
    let product = ann.product().await;
    let order = ann.place(&product, 2, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;

    let slow = ann.place(&product, 1, "tok_slow").await;
    stack.kill("payment-service", 0);
    stack.kill("payment-service", 1);
    let waiting = ann.place(&product, 1, "tok_visa").await;
    stack.restart("payment-service", 0);
    for order in [slow, waiting] {
        ann.order_reaches(&order, "confirmed").await;
        let path = format!("/statement?order_id={}", order["id"].as_str().unwrap());
        let charges = stack.direct("card-network").get(&path).await.expect(200)["charges"].clone();
        assert_eq!(charges.as_array().map(Vec::len), Some(1), "{charges}");
        assert_eq!(charges[0]["times_captured"], 1, "{charges}");
    }
}
