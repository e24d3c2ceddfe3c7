use time::Duration;
use user_service::store::Refreshed;

use crate::harness::{
    attempt, count_failure, log_in, long_ago, prune, refresh, register, renew, rows, stores,
};

#[actix_web::test]
async fn expired_sessions_and_old_failures_are_pruned() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        log_in(&store, "here").await;
        count_failure(&store, &attempt("ann@example.com", "here")).await.unwrap();
        long_ago(&store, "sessions", "expires_at", Duration::days(31)).await;
        long_ago(&store, "login_failures", "began_at", Duration::days(31)).await;
        log_in(&store, "there").await;
        prune(&store).await;
        for (table, left) in [("sessions", 1), ("refresh_tokens", 1), ("login_failures", 0)] {
            assert_eq!(rows(&store, table).await, left, "{table}");
        }
    }
}

#[actix_web::test]
async fn a_living_session_keeps_no_spent_tokens_and_still_knows_them_when_they_come_again() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        let (_, first) = log_in(&store, "here").await;
        let mut newest = first.clone();
        for _ in 0..5 {
            newest = renew(&store, &newest).await;
        }
        prune(&store).await;
        assert_eq!(rows(&store, "refresh_tokens").await, 6, "an answer may be lost");
        long_ago(&store, "refresh_tokens", "spent_at", Duration::seconds(21)).await;
        prune(&store).await;
        assert_eq!(rows(&store, "refresh_tokens").await, 1);
        newest = renew(&store, &newest).await;
        assert!(matches!(refresh(&store, &first).await, Ok(Refreshed::Reused)));
        assert!(refresh(&store, &newest).await.is_err(), "the family is revoked");
    }
}
