//! Retention of messages.
//!
//! | rows | kept for | because |
//! |---|---|---|
//! | sent events | 1 hour | debugging |
//! | inbox, and failures of handlers | 7 days | a duplicate may arrive that late |
//! | dead letters | until an admin decides | |

use time::Duration;

use crate::db::Retention;

pub(super) const INBOX_RETENTION: Duration = Duration::days(7);
pub(super) const RETENTION: [Retention; 3] = [
    Retention { table: "outbox", key: "seq", time: "sent_at", kept: Duration::hours(1) },
    Retention { table: "inbox", key: "consumer, id", time: "seen_at", kept: INBOX_RETENTION },
    Retention { table: "inbox_failures", key: "consumer, id", time: "at", kept: INBOX_RETENTION },
];

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::db::{BATCH, Db, Tx, now, query, testing};
    use crate::idempotency;

    async fn prune(db: &Db) {
        for rows in RETENTION.iter().chain(&idempotency::RETENTION) {
            db.prune(rows).await.unwrap();
        }
    }

    async fn seen(tx: &mut Tx, at: OffsetDateTime) {
        let insert = query("INSERT INTO inbox (consumer, id, seen_at) VALUES ('a', $1, $2)");
        insert.bind(Uuid::now_v7()).bind(at).execute(tx).await.unwrap();
    }

    async fn fill(db: &Db, now: OffsetDateTime) {
        let (hour, week, minute) = (Duration::hours(1), Duration::days(7), Duration::minutes(1));
        let long_ago = now - Duration::days(365);
        let mut tx = db.begin().await.unwrap();
        for sent_at in [Some(now - hour - minute), Some(now - hour + minute), None] {
            let insert = query(
                "INSERT INTO outbox (id, destination, subject, event, created_at, next_at, sent_at) \
                 VALUES ($1, 'a', 'b', $2, $3, $3, $4)",
            );
            let insert = insert.bind(Uuid::now_v7()).bind(serde_json::json!({})).bind(long_ago).bind(sent_at);
            insert.execute(&mut tx).await.unwrap();
        }
        for at in [now - week - minute, now - week + minute] {
            seen(&mut tx, at).await;
            let insert =
                query("INSERT INTO inbox_failures (consumer, id, failures, at) VALUES ('a', $1, 1, $2)");
            insert.bind(Uuid::now_v7()).bind(at).execute(&mut tx).await.unwrap();
        }
        for expires_at in [now - minute, now + minute] {
            let insert = query(
                "INSERT INTO idempotency_keys (scope, key, fingerprint, expires_at) VALUES ('a', $1, '', $2)",
            );
            let key = Uuid::now_v7().to_string();
            insert.bind(key).bind(expires_at).execute(&mut tx).await.unwrap();
        }
        let insert = query(
            "INSERT INTO dead_letters (id, destination, type, subject, event, attempts, last_error, at) \
             VALUES ($1, 'a', 'b', 'c', $2, 1, '', $3)",
        );
        let insert = insert.bind(Uuid::now_v7()).bind(serde_json::json!({})).bind(long_ago);
        insert.execute(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[actix_web::test]
    async fn pruning_deletes_old_rows_and_keeps_new_unsent_and_undecided_ones() {
        let minute = Duration::minutes(1);
        for db in testing::databases().await {
            let now = now();
            fill(&db, now).await;
            prune(&db).await;
            for (table, time, left, oldest) in [
                ("outbox", "sent_at", 2, now - Duration::hours(1) + minute),
                ("inbox", "seen_at", 1, now - Duration::days(7) + minute),
                ("inbox_failures", "at", 1, now - Duration::days(7) + minute),
                ("idempotency_keys", "expires_at", 1, now + minute),
                ("dead_letters", "at", 1, now - Duration::days(365)),
            ] {
                let kept = query(format!("SELECT COUNT(*) AS rows, MIN({time}) AS oldest FROM {table}"));
                let kept = kept.fetch_one(&db).await.unwrap();
                assert_eq!(kept.get::<i64>("rows").unwrap(), left, "{table}");
                assert_eq!(kept.get::<OffsetDateTime>("oldest").unwrap(), oldest, "{table}");
            }
        }
    }

    #[actix_web::test]
    async fn one_pruning_run_deletes_all_old_rows_however_many() {
        for db in testing::databases().await {
            let mut tx = db.begin().await.unwrap();
            for _ in 0..2 * BATCH + 1 {
                seen(&mut tx, now() - Duration::days(8)).await;
            }
            tx.commit().await.unwrap();
            prune(&db).await;
            let left = query("SELECT COUNT(*) AS rows FROM inbox").fetch_one(&db).await.unwrap();
            assert_eq!(left.get::<i64>("rows").unwrap(), 0);
        }
    }
}
