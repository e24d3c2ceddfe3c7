//! Commands, leases, fencing.

use payment_service::domain::{Intent, NetworkRequest, NetworkResponse, Purchase};
use payment_service::error::Error;
use payment_service::store::Recorded;
use shared::db::query;

use crate::harness::{purchase, replicas};

#[actix_web::test]
async fn an_intent_is_leased_at_commit_to_the_replica_that_wrote_it() {
    for mut replica in replicas().await {
        let purchase = purchase();
        replica.authorize(&purchase).await.unwrap();
        let job = replica.job().unwrap();
        assert_eq!(job.payment.next_request(), Some(NetworkRequest::Authorize));
        assert!(replica.other().await.claim(10).await.is_empty(), "the lease holds");
        assert_eq!(replica.respond(&job, NetworkResponse::Approved).await, Recorded::Settled);
        assert_eq!(replica.status(purchase.id).await, "authorized");
        assert_eq!(replica.events(purchase.order_id).await, ["payment.authorized.v1"]);
        assert_eq!(replica.payment(purchase.id).await.token, None, "the token is forgotten");
    }
}

#[actix_web::test]
async fn what_is_rolled_back_leaves_neither_payment_nor_work() {
    for mut replica in replicas().await {
        let purchase = purchase();
        let mut tx = replica.db.begin().await.unwrap();
        let token = "tok_visa".to_owned();
        replica.store.authorize(&mut tx, purchase.clone(), token, None).await.unwrap();
        drop(tx);
        assert!(replica.job().is_none());
        assert!(replica.store.payment(purchase.id).await.unwrap().is_none());
    }
}

#[actix_web::test]
async fn a_replica_that_was_paused_past_its_lease_overwrites_nothing() {
    for replica in replicas().await {
        let mut paused = replica.careless().await;
        let purchase = purchase();
        paused.authorize(&purchase).await.unwrap();
        let before = paused.job().unwrap();
        let taken_over = replica.claim(10).await.remove(0);
        assert_eq!(taken_over.payment.id, purchase.id);

        let declined = NetworkResponse::Declined("card_declined".to_owned());
        assert_eq!(paused.respond(&before, declined.clone()).await, Recorded::Fenced);
        assert_eq!(replica.status(purchase.id).await, "authorizing");
        assert_eq!(replica.respond(&taken_over, NetworkResponse::Approved).await, Recorded::Settled);
        assert_eq!(paused.respond(&before, declined).await, Recorded::Fenced);
        assert_eq!(replica.events(purchase.order_id).await, ["payment.authorized.v1"]);
    }
}

#[actix_web::test]
async fn a_command_during_a_card_network_request_wins_over_its_response() {
    for mut replica in replicas().await {
        let purchase = purchase();
        replica.authorize(&purchase).await.unwrap();
        let stale = replica.job().unwrap();
        replica.void(&purchase).await.unwrap();
        assert_eq!(replica.respond(&stale, NetworkResponse::Approved).await, Recorded::Fenced);
        let undo = replica.job().unwrap();
        assert_eq!(undo.payment.next_request(), Some(NetworkRequest::Void));
        replica.respond(&undo, NetworkResponse::Voided).await;
        assert_eq!(replica.events(purchase.order_id).await, ["payment.voided.v1"]);
    }
}

#[actix_web::test]
async fn a_void_during_a_capture_lets_the_card_network_decide_which_was_first() {
    for mut replica in replicas().await {
        for (first, event) in [
            (NetworkResponse::Captured, "payment.captured.v2"),
            (NetworkResponse::Voided, "payment.voided.v1"),
        ] {
            let purchase = purchase();
            replica.authorize(&purchase).await.unwrap();
            let authorize = replica.job().unwrap();
            replica.respond(&authorize, NetworkResponse::Approved).await;
            replica.capture(purchase.id).await.unwrap();
            let capture = replica.job().unwrap();
            replica.void(&purchase).await.unwrap();
            let void = replica.job().unwrap();
            assert_eq!(void.payment.next_request(), Some(NetworkRequest::Void));
            assert_eq!(replica.respond(&capture, NetworkResponse::Captured).await, Recorded::Fenced);
            assert_eq!(replica.respond(&void, first).await, Recorded::Settled);
            assert_eq!(replica.events(purchase.order_id).await, ["payment.authorized.v1", event]);
        }
        assert_eq!(replica.store.ledger().await.unwrap().entries, 2, "the money moved once");
    }
}

#[actix_web::test]
async fn two_replicas_never_claim_the_same_work() {
    for replica in replicas().await {
        let careless = replica.careless().await;
        for _ in 0..20 {
            careless.authorize(&purchase()).await.unwrap();
        }
        let other = replica.other().await;
        let (one, two) = futures_util::join!(replica.claim(15), other.claim(15));
        let mut claimed: Vec<_> = one.into_iter().chain(two).map(|job| job.payment.id).collect();
        let all = claimed.len();
        claimed.sort();
        claimed.dedup();
        assert_eq!(claimed.len(), all, "some work was claimed twice");
        assert!(all >= 15);
    }
}

#[actix_web::test]
async fn a_request_without_a_response_leads_to_a_status_query_and_is_not_repeated() {
    for mut replica in replicas().await {
        let purchase = purchase();
        replica.authorize(&purchase).await.unwrap();
        let job = replica.job().unwrap();
        assert!(matches!(replica.respond(&job, NetworkResponse::Missing).await, Recorded::DueAgain(_)));
        assert_eq!(replica.status(purchase.id).await, "unknown");
        let again = replica.claim(10).await.remove(0);
        assert_eq!(again.payment.next_request(), Some(NetworkRequest::Status));
        replica.respond(&again, NetworkResponse::Approved).await;
        assert!(replica.claim(10).await.is_empty());
    }
}

#[actix_web::test]
async fn a_void_that_arrives_before_its_authorization_leaves_a_tombstone() {
    for mut replica in replicas().await {
        let purchase = purchase();
        replica.void(&purchase).await.unwrap();
        replica.authorize(&purchase).await.unwrap();
        assert!(replica.job().is_none(), "the card network is never asked");
        assert_eq!(replica.status(purchase.id).await, "voided");
        assert_eq!(replica.events(purchase.order_id).await, ["payment.voided.v1", "payment.voided.v1"]);
    }
}

#[actix_web::test]
async fn a_command_that_comes_again_is_answered_again_and_does_nothing() {
    for mut replica in replicas().await {
        let payment = replica.captured().await;
        replica.capture(payment.id).await.unwrap();
        assert!(replica.job().is_none());
        assert_eq!(
            replica.events(payment.order_id).await,
            ["payment.authorized.v1", "payment.captured.v2", "payment.captured.v2"]
        );
        assert_eq!(replica.payment(payment.id).await, payment);
    }
}

#[actix_web::test]
async fn a_void_after_the_capture_is_answered_with_captured() {
    for mut replica in replicas().await {
        let payment = replica.captured().await;
        let purchase = Purchase {
            id: payment.id,
            order_id: payment.order_id,
            customer_id: payment.customer_id,
            amount: payment.amount,
        };
        replica.void(&purchase).await.unwrap();
        assert!(replica.job().is_none());
        assert_eq!(replica.events(payment.order_id).await.last().unwrap(), "payment.captured.v2");
    }
}

#[actix_web::test]
async fn a_capture_of_what_is_not_authorized_is_refused() {
    for replica in replicas().await {
        let purchase = purchase();
        assert!(matches!(replica.capture(purchase.id).await, Err(Error::NotFound)));
        replica.authorize(&purchase).await.unwrap();
        assert!(matches!(replica.capture(purchase.id).await, Err(Error::Refused(_))));
    }
}

#[actix_web::test]
async fn the_payments_of_a_batch_are_written_at_its_end_with_all_changes_of_each() {
    for mut replica in replicas().await {
        let (one, other, third) = (purchase(), purchase(), purchase());
        for purchase in [&one, &other, &third] {
            replica.authorize(purchase).await.unwrap();
            let job = replica.job().unwrap();
            assert_eq!(replica.respond(&job, NetworkResponse::Approved).await, Recorded::Settled);
        }
        let mut tx = replica.db.begin().await.unwrap();
        replica.store.lock_all(&mut tx, vec![one.id, other.id, third.id, purchase().id]).await.unwrap();
        for id in [one.id, other.id, third.id] {
            replica.store.capture(&mut tx, id, None).await.unwrap();
        }
        replica.store.void(&mut tx, other.clone(), None).await.unwrap();
        let intents = query("SELECT COUNT(*) AS number FROM payments WHERE intent IS NOT NULL");
        let intents: i64 = intents.fetch_one(&mut tx).await.unwrap().get("number").unwrap();
        assert_eq!(intents, 0, "nothing is written yet");
        tx.commit().await.unwrap();
        for (id, intent) in [(one.id, Intent::Capture), (other.id, Intent::Void), (third.id, Intent::Capture)]
        {
            assert_eq!(replica.payment(id).await.state.intent, Some(intent));
        }
        let job = replica.job().unwrap();
        assert_eq!((job.payment.id, job.payment.next_request()), (one.id, Some(NetworkRequest::Capture)));
        assert_eq!(replica.respond(&job, NetworkResponse::Captured).await, Recorded::Settled);
        assert!(replica.claim(10).await.is_empty(), "all work is leased");
    }
}
