//! Commands, leases, fencing.

use payment_service::domain::{Answer, Purchase, Question};
use payment_service::store::{Commanded, Recorded};

use crate::harness::{purchase, replicas};

#[actix_web::test]
async fn an_intent_is_leased_at_commit_to_the_replica_that_wrote_it() {
    for mut replica in replicas().await {
        let purchase = purchase();
        replica.authorize(&purchase).await;
        let job = replica.job().unwrap();
        assert_eq!(job.payment.question(), Some(Question::Authorize));
        assert!(replica.other().await.store.claim_due(10).await.unwrap().is_empty(), "the lease holds");
        assert_eq!(replica.answer(&job, Answer::Approved).await, Recorded::AtRest);
        assert_eq!(replica.status(purchase.id).await, "authorized");
        assert_eq!(replica.told(purchase.order_id).await, ["payment.authorized.v1"]);
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
        paused.authorize(&purchase).await;
        let before = paused.job().unwrap();
        let taken_over = replica.store.claim_due(10).await.unwrap().remove(0);
        assert_eq!(taken_over.payment.id, purchase.id);

        let declined = Answer::Declined("card_declined".to_owned());
        assert_eq!(paused.answer(&before, declined.clone()).await, Recorded::Fenced);
        assert_eq!(replica.status(purchase.id).await, "authorizing");
        assert_eq!(replica.answer(&taken_over, Answer::Approved).await, Recorded::AtRest);
        assert_eq!(paused.answer(&before, declined).await, Recorded::Fenced);
        assert_eq!(replica.told(purchase.order_id).await, ["payment.authorized.v1"]);
    }
}

#[actix_web::test]
async fn a_command_that_comes_while_the_network_is_asked_wins_over_the_answer() {
    for mut replica in replicas().await {
        let purchase = purchase();
        replica.authorize(&purchase).await;
        let asked = replica.job().unwrap();
        replica.void(&purchase).await;
        assert_eq!(replica.answer(&asked, Answer::Approved).await, Recorded::Fenced);
        let undo = replica.job().unwrap();
        assert_eq!(undo.payment.question(), Some(Question::Void));
        replica.answer(&undo, Answer::Voided).await;
        assert_eq!(replica.told(purchase.order_id).await, ["payment.voided.v1"]);
    }
}

#[actix_web::test]
async fn a_void_that_comes_while_the_money_is_taken_leaves_it_to_the_network_which_was_first() {
    for mut replica in replicas().await {
        for (first, told) in
            [(Answer::Captured, "payment.captured.v2"), (Answer::Voided, "payment.voided.v1")]
        {
            let purchase = purchase();
            replica.authorize(&purchase).await;
            let authorize = replica.job().unwrap();
            replica.answer(&authorize, Answer::Approved).await;
            replica.capture(purchase.id).await;
            let capture = replica.job().unwrap();
            replica.void(&purchase).await;
            let void = replica.job().unwrap();
            assert_eq!(void.payment.question(), Some(Question::Void));
            assert_eq!(replica.answer(&capture, Answer::Captured).await, Recorded::Fenced);
            assert_eq!(replica.answer(&void, first).await, Recorded::AtRest);
            assert_eq!(replica.told(purchase.order_id).await, ["payment.authorized.v1", told]);
        }
        assert_eq!(replica.store.ledger().await.unwrap().entries, 2, "the money moved once");
    }
}

#[actix_web::test]
async fn two_replicas_never_claim_the_same_work() {
    for replica in replicas().await {
        let careless = replica.careless().await;
        for _ in 0..20 {
            careless.authorize(&purchase()).await;
        }
        let other = replica.other().await;
        let (one, two) = futures_util::join!(replica.store.claim_due(15), other.store.claim_due(15));
        let mut claimed: Vec<_> =
            one.unwrap().into_iter().chain(two.unwrap()).map(|job| job.payment.id).collect();
        let all = claimed.len();
        claimed.sort();
        claimed.dedup();
        assert_eq!(claimed.len(), all, "some work was claimed twice");
        assert!(all >= 15);
    }
}

#[actix_web::test]
async fn what_was_not_answered_is_asked_about_and_not_done_again() {
    for mut replica in replicas().await {
        let purchase = purchase();
        replica.authorize(&purchase).await;
        let job = replica.job().unwrap();
        assert!(matches!(replica.answer(&job, Answer::NoAnswer).await, Recorded::More(_)));
        assert_eq!(replica.status(purchase.id).await, "unknown");
        let again = replica.store.claim_due(10).await.unwrap().remove(0);
        assert_eq!(again.payment.question(), Some(Question::Status));
        replica.answer(&again, Answer::Approved).await;
        assert!(replica.store.claim_due(10).await.unwrap().is_empty());
    }
}

#[actix_web::test]
async fn an_undo_that_comes_before_its_do_leaves_a_tombstone() {
    for mut replica in replicas().await {
        let purchase = purchase();
        assert_eq!(replica.void(&purchase).await, Commanded::Done);
        assert_eq!(replica.authorize(&purchase).await, Commanded::Done);
        assert!(replica.job().is_none(), "the card network is never asked");
        assert_eq!(replica.status(purchase.id).await, "voided");
        assert_eq!(replica.told(purchase.order_id).await, ["payment.voided.v1", "payment.voided.v1"]);
    }
}

#[actix_web::test]
async fn a_command_that_comes_again_is_answered_again_and_does_nothing() {
    for mut replica in replicas().await {
        let payment = replica.captured().await;
        assert_eq!(replica.capture(payment.id).await, Commanded::Done);
        assert!(replica.job().is_none());
        assert_eq!(
            replica.told(payment.order_id).await,
            ["payment.authorized.v1", "payment.captured.v2", "payment.captured.v2"]
        );
        assert_eq!(replica.payment(payment.id).await, payment);
    }
}

#[actix_web::test]
async fn a_void_that_comes_too_late_is_told_so() {
    for mut replica in replicas().await {
        let payment = replica.captured().await;
        let purchase = Purchase {
            id: payment.id,
            order_id: payment.order_id,
            customer_id: payment.customer_id,
            amount: payment.amount,
        };
        replica.void(&purchase).await;
        assert!(replica.job().is_none());
        assert_eq!(replica.told(payment.order_id).await.last().unwrap(), "payment.captured.v2");
    }
}

#[actix_web::test]
async fn a_capture_of_what_is_not_authorized_is_refused() {
    for replica in replicas().await {
        let purchase = purchase();
        assert_eq!(replica.capture(purchase.id).await, Commanded::NoPayment);
        replica.authorize(&purchase).await;
        assert!(matches!(replica.capture(purchase.id).await, Commanded::Refused(_)));
    }
}
