//! The comparison of the card network's statement with the books, page by page.

use std::collections::BTreeSet;
use std::time::Duration;

use payment_service::card_network;
use payment_service::clients::card_network::{CardNetwork, charge_key};
use payment_service::domain::Figure;
use payment_service::tasks::reconciliation::reconcile;
use serde_json::json;
use shared::db::{DbConfig, testing};
use shared::service::HttpConfig;
use shared::testing::run;

use crate::harness::replicas;

#[actix_web::test]
async fn no_difference_is_hidden_between_two_pages_or_before_or_after_all() {
    for mut replica in replicas().await {
        let database = DbConfig::at(&testing::sqlite_url());
        let config = card_network::config::Config { http: HttpConfig::for_tests(), database };
        let (network, _) = run(card_network::app::build(config).await.unwrap());
        let client = CardNetwork::new(&network.base.parse().unwrap(), Duration::from_secs(4));
        let (mut expected, mut strangers) = (BTreeSet::new(), vec!["0".to_owned(), "z".to_owned()]);
        for _ in 0..5 {
            // The card network never heard of it.
            let payment = replica.captured().await;
            expected.insert((charge_key(payment.id), Figure::Captured));
            strangers.push(format!("{}-b", payment.id));
        }
        for key in strangers {
            let charge = json!({
                "key": key, "order_id": "o", "amount": 500, "currency": "EUR", "token": "tok_visa"
            });
            network.post("/authorizations", charge).await.expect(201);
            expected.insert((key, Figure::Held));
        }
        reconcile(&replica.store, &client, 2).await.unwrap();
        assert_eq!(replica.store.open_differences().await.unwrap(), expected);
    }
}
