//! The comparison of the card network's statement with the books, page by page.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join;
use payment_service::card_network;
use payment_service::card_network::store::AuthorizationRequest;
use payment_service::clients::card_network::{CardNetwork, charge_key};
use payment_service::domain::{Amount, AmountKind, Difference};
use payment_service::tasks::reconciliation::{Progress, reconcile, run as run_task};
use serde_json::json;
use shared::db::{Db, DbError, Tx};
use shared::stop::Stop;
use tokio::sync::Barrier;

use crate::harness::{Replica, card_network, replicas};

#[actix_web::test]
async fn no_difference_is_hidden_between_two_pages_or_before_or_after_all() {
    for mut replica in replicas().await {
        let (network, client, _) = card_network().await;
        let (mut expected, mut strangers) = (BTreeSet::new(), vec!["0".to_owned(), "z".to_owned()]);
        for _ in 0..5 {
            // The card network never heard of it.
            let payment = replica.captured().await;
            expected.insert((charge_key(payment.id), AmountKind::Captured));
            strangers.push(format!("{}-b", payment.id));
        }
        for key in strangers {
            let charge = json!({
                "key": key, "order_id": "o", "amount": 500, "currency": "EUR", "token": "tok_visa"
            });
            network.post("/authorizations", charge).await.expect(201);
            expected.insert((key, AmountKind::Held));
        }
        reconcile(&replica.store, &client, 2).await.unwrap();
        assert_eq!(replica.store.open_differences().await.unwrap(), expected);
    }
}

/// The number of unknown charges: more than fit into one response.
const STRANGERS: usize = 20_000;

#[actix_web::test]
async fn charges_after_the_last_payment_are_compared_page_by_page_too() {
    for mut replica in replicas().await {
        let (_, client, database) = card_network().await;
        replica.captured().await;
        let there = card_network::store::Store::new(
            Db::open(&database, card_network::store::migrations()).await.unwrap(),
        );
        let charge = |number: usize| AuthorizationRequest {
            key: format!("z{number:0>40}"),
            order_id: "o".to_owned(),
            amount: 500,
            currency: "EUR".to_owned(),
            token: "tok_visa".to_owned(),
        };
        let charged = there.db().transaction(async |tx| {
            for number in 0..STRANGERS {
                there.authorize(tx, &charge(number)).await?;
            }
            Ok::<_, card_network::error::Error>(())
        });
        charged.await.unwrap();
        reconcile(&replica.store, &client, 500).await.unwrap();
        assert_eq!(replica.store.count_open_differences().await.unwrap(), STRANGERS as i64 + 1);
    }
}

#[actix_web::test]
async fn a_comparison_ends_immediately_when_the_service_stops() {
    for replica in replicas().await {
        // It accepts, and never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
        let client = CardNetwork::new(&url, Duration::from_secs(60));
        let (stopper, stop) = Stop::pair();
        let every = Duration::from_secs(3600);
        let running =
            actix_web::rt::spawn(run_task(replica.store.clone(), client, every, Progress::default(), stop));
        let (_asked, _) = actix_web::web::block(move || silent.accept().unwrap()).await.unwrap();
        stopper.stop();
        tokio::time::timeout(Duration::from_secs(10), running).await.expect("it ends").unwrap();
    }
}

/// Records that `first` was captured, and then `second`, in one transaction that waits for the other one in between.
async fn find(replica: &Replica, first: &str, second: &str, both: &Barrier) -> Result<(), DbError> {
    let amount = |amount| Amount { amount, currency: "EUR".to_owned() };
    let found = |key: &str| {
        let difference = Difference { figure: AmountKind::Captured, ours: amount(0), theirs: amount(500) };
        [(key.to_owned(), None, difference)]
    };
    let found = async |tx: &mut Tx| {
        replica.store.write_differences(tx, &found(first));
        both.wait().await;
        replica.store.write_differences(tx, &found(second));
        Ok(())
    };
    replica.db.transaction(found).await
}

#[actix_web::test]
async fn transactions_that_find_the_same_differences_in_another_order_do_not_deadlock() {
    for replica in replicas().await {
        // The other database has one writer at a time.
        if replica.db.kind() == "postgres" {
            let both = Barrier::new(2);
            let (one, other) = join(find(&replica, "a", "b", &both), find(&replica, "b", "a", &both)).await;
            one.unwrap();
            other.unwrap();
            assert_eq!(replica.store.count_open_differences().await.unwrap(), 2);
        }
    }
}
