use shared::db::{now, query};
use user_service::store::RETENTION;

use crate::harness::{attempt, count_failure, log_in, register, stores};

#[actix_web::test]
async fn expired_sessions_and_old_failures_are_pruned() {
    for store in stores().await {
        let db = store.db();
        register(&store, "ann@example.com").await.unwrap();
        log_in(&store, "here", "old").await;
        count_failure(&store, &attempt("ann@example.com", "here")).await.unwrap();
        let long_ago = now() - time::Duration::days(31);
        query("UPDATE sessions SET expires_at = $1").bind(long_ago).execute(db).await.unwrap();
        query("UPDATE login_failures SET began_at = $1").bind(long_ago).execute(db).await.unwrap();
        log_in(&store, "there", "new").await;
        for rows in &RETENTION {
            db.prune(rows).await.unwrap();
        }
        for (table, left) in [("sessions", 1), ("refresh_tokens", 1), ("login_failures", 0)] {
            let row = query(format!("SELECT COUNT(*) AS rows FROM {table}")).fetch_one(db).await.unwrap();
            assert_eq!(row.get::<i64>("rows").unwrap(), left, "{table}");
        }
    }
}
