//! The ledger balances, and stays.

use payment_service::domain::NetworkResponse;
use payment_service::store::{Balance, Recorded};
use shared::db::{DbError, query};

use crate::harness::{eur, purchase, replicas};

const UNBALANCED: &str = "SELECT COUNT(*) AS number FROM \
    (SELECT payment_id FROM ledger_entries GROUP BY payment_id, cause, currency HAVING SUM(amount) <> 0) AS t";

#[actix_web::test]
async fn every_money_movement_has_two_ledger_entries_that_sum_to_zero() {
    for mut replica in replicas().await {
        for _ in 0..3 {
            replica.captured().await;
        }
        let payment = replica.captured().await;
        let refund = replica.refund(payment.id, Some(eur(250))).await.unwrap();
        let job = replica.job().unwrap();
        replica.respond(&job, NetworkResponse::RefundDone(refund)).await;

        let ledger = replica.store.ledger().await.unwrap();
        let balance = |account: &str, balance| Balance {
            account: account.to_owned(),
            currency: "EUR".to_owned(),
            balance,
        };
        assert_eq!(
            ledger.balances,
            [balance("card_network", 3750), balance("refunds", 250), balance("sales", -4000)]
        );
        assert_eq!((ledger.sum(), ledger.entries), (0, 10));
        assert_eq!(replica.number(UNBALANCED).await, 0);
        let counted = "SELECT COUNT(*) AS number FROM ledger_entries";
        assert_eq!(replica.number(counted).await, ledger.entries, "the totals are of these entries");
    }
}

#[actix_web::test]
async fn entries_can_neither_be_changed_nor_deleted() {
    for mut replica in replicas().await {
        replica.captured().await;
        for sql in ["UPDATE ledger_entries SET amount = amount + 1", "DELETE FROM ledger_entries"] {
            let error = query(sql).execute(&replica.db).await.unwrap_err().to_string();
            assert!(error.contains("ledger entries cannot be"), "{error}");
        }
        assert_eq!(replica.number("SELECT COUNT(*) AS number FROM ledger_entries").await, 2);
    }
}

#[actix_web::test]
async fn one_cause_moves_the_money_of_a_payment_once() {
    for mut replica in replicas().await {
        let payment = replica.captured().await;
        let again = query(
            "INSERT INTO ledger_entries (payment_id, cause, account, amount, currency, at) \
             SELECT payment_id, cause, account, amount, currency, at FROM ledger_entries \
             WHERE payment_id = $1",
        );
        let error = again.bind(payment.id).execute(&replica.db).await.unwrap_err();
        assert!(matches!(error, DbError::Taken(_)), "{error}");
    }
}

#[actix_web::test]
async fn an_answer_that_is_recorded_already_moves_no_money() {
    for mut replica in replicas().await {
        let purchase = purchase();
        replica.authorize(&purchase).await.unwrap();
        let job = replica.job().unwrap();
        replica.respond(&job, NetworkResponse::Approved).await;
        replica.capture(purchase.id).await.unwrap();
        let capture = replica.job().unwrap();
        assert_eq!(replica.respond(&capture, NetworkResponse::Captured).await, Recorded::Settled);
        assert_eq!(replica.respond(&capture, NetworkResponse::Captured).await, Recorded::Fenced);
        assert_eq!(replica.store.ledger().await.unwrap().entries, 2);
    }
}
