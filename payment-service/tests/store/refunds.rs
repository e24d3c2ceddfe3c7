//! Refunds never exceed what was captured.

use payment_service::domain::{Money, NetworkResponse, Refusal};
use payment_service::error::Error;
use payment_service::store::Recorded;
use shared::db::{DbError, query};

use crate::harness::{Replica, eur, purchase, replicas};

fn refusal(error: Error) -> Refusal {
    match error {
        Error::Refused(refusal) => refusal,
        other => panic!("{other}"),
    }
}

/// Carries out the refunds that are leased to this replica, and then those that are due.
async fn settle(replica: &mut Replica) {
    while let Some(leased) = replica.job() {
        let mut job = Some(leased);
        while let Some(next) = job {
            let refund = next.refund.clone().unwrap();
            replica.respond(&next, NetworkResponse::RefundDone(refund)).await;
            job = replica.claim(1).await.pop();
        }
    }
}

#[actix_web::test]
async fn two_concurrent_partial_refunds_both_succeed() {
    for mut replica in replicas().await {
        let mut other = replica.other().await;
        for _ in 0..10 {
            let payment = replica.captured().await;
            let (one, two) = futures_util::join!(
                replica.refund(payment.id, Some(eur(400))),
                other.refund(payment.id, Some(eur(600)))
            );
            assert!(one.is_ok() && two.is_ok());
            assert_eq!(replica.status(payment.id).await, "refunding");
            settle(&mut replica).await;
            settle(&mut other).await;
            let payment = replica.payment(payment.id).await;
            assert_eq!((payment.state.status.as_str(), payment.refunded), ("refunded", eur(1000)));
            let events = replica.events(payment.order_id).await;
            assert!(!events.contains(&"payment.refunded.v1".to_owned()), "the order did not ask");
        }
    }
}

#[actix_web::test]
async fn of_two_concurrent_refunds_that_together_exceed_the_payment_one_is_refused() {
    for mut replica in replicas().await {
        let mut other = replica.other().await;
        for _ in 0..10 {
            let payment = replica.captured().await;
            let (one, two) = futures_util::join!(
                replica.refund(payment.id, Some(eur(600))),
                other.refund(payment.id, Some(eur(600)))
            );
            let refused: Vec<_> = [one, two].into_iter().filter_map(Result::err).map(refusal).collect();
            assert_eq!(refused, [Refusal::ExceedsCaptured]);
            settle(&mut replica).await;
            settle(&mut other).await;
            assert_eq!(replica.payment(payment.id).await.refunded, eur(600));
            assert_eq!(replica.status(payment.id).await, "partially_refunded");
        }
    }
}

#[actix_web::test]
async fn the_database_refuses_to_give_back_more_than_was_taken() {
    for mut replica in replicas().await {
        let payment = replica.captured().await;
        for change in ["refunded = 1001", "refund_pending = 1001", "refunded = 600, refund_pending = 401"] {
            let broken = query(format!("UPDATE payments SET {change} WHERE id = $1")).bind(payment.id);
            let refused = broken.execute(&replica.db).await;
            assert!(matches!(refused, Err(DbError::Refused(_))), "{change}: {refused:?}");
        }
    }
}

#[actix_web::test]
async fn a_refund_of_the_order_covers_what_an_admin_has_not_refunded() {
    for mut replica in replicas().await {
        let payment = replica.captured().await;
        replica.refund(payment.id, Some(eur(1))).await.unwrap();
        replica.refund_rest(payment.id).await.unwrap();
        replica.refund_rest(payment.id).await.unwrap();
        settle(&mut replica).await;
        let payment = replica.payment(payment.id).await;
        assert_eq!((payment.state.status.as_str(), payment.refunded), ("refunded", eur(1000)));
        let events = replica.events(payment.order_id).await;
        assert_eq!(events.iter().filter(|kind| *kind == "payment.refunded.v1").count(), 1);
    }
}

#[actix_web::test]
async fn a_refund_that_the_network_refuses_leaves_the_payment_as_it_was() {
    for mut replica in replicas().await {
        let payment = replica.captured().await;
        let refund = replica.refund(payment.id, None).await.unwrap();
        assert_eq!(refund.amount, eur(1000));
        let job = replica.job().unwrap();
        assert_eq!(replica.respond(&job, NetworkResponse::RefundRefused(refund)).await, Recorded::Settled);
        let payment = replica.payment(payment.id).await;
        assert_eq!((payment.state.status.as_str(), payment.refundable()), ("captured", eur(1000)));
    }
}

#[actix_web::test]
async fn what_was_not_captured_cannot_be_refunded() {
    for replica in replicas().await {
        let purchase = purchase();
        replica.authorize(&purchase).await.unwrap();
        let refused = replica.refund(purchase.id, None).await.unwrap_err();
        assert_eq!(refusal(refused), Refusal::NotRefundable);
        assert!(matches!(replica.refund_rest(purchase.id).await, Err(Error::Refused(_))));
    }
}

#[actix_web::test]
async fn another_currency_is_refused() {
    for mut replica in replicas().await {
        let payment = replica.captured().await;
        let dollars = Money::new(1, "USD".try_into().unwrap()).unwrap();
        let refused = replica.refund(payment.id, Some(dollars)).await.unwrap_err();
        assert_eq!(refusal(refused), Refusal::OtherCurrency);
    }
}
