//! Retention: nothing in the chassis' tables grows without bound.
//!
//! | rows | kept for | because |
//! |---|---|---|
//! | sent events | 1 hour | to look at |
//! | inbox | 7 days | longer than a message can be on its way without a person noticing |
//! | idempotency keys | 24 hours | what clients are promised |
//! | dead letters | until a person decides | |

use std::time::Duration;

use time::OffsetDateTime;

use super::admin::backlog;
use crate::db::{Db, DbError, now, query};
use crate::metrics;
use crate::stop::Stop;

const SENT: time::Duration = time::Duration::hours(1);
pub(super) const SEEN: time::Duration = time::Duration::days(7);
/// Between two looks at the backlog; every twelfth also prunes.
const LOOK: Duration = Duration::from_secs(5);

/// Rows deleted in one transaction: few, so that nobody waits long.
const BATCH: u64 = 500;

pub(super) async fn run(db: Db, stop: Stop) {
    for look in 0u64.. {
        stop.sleep(LOOK).await;
        if stop.is_requested() {
            return;
        }
        match backlog(&db).await {
            Ok((pending, oldest_age_s)) => metrics::outbox(pending, oldest_age_s),
            Err(error) => log::warn!(error:%; "the outbox cannot be counted"),
        }
        if look % 12 == 11
            && let Err(error) = prune(&db, now()).await
        {
            log::warn!(error:%; "old rows cannot be pruned");
        }
    }
}

async fn prune(db: &Db, now: OffsetDateTime) -> Result<(), DbError> {
    for (delete, before) in [
        ("outbox WHERE seq IN (SELECT seq FROM outbox WHERE sent_at < $1 LIMIT 500)", now - SENT),
        (
            "inbox WHERE (consumer, id) IN (SELECT consumer, id FROM inbox WHERE seen_at < $1 LIMIT 500)",
            now - SEEN,
        ),
        (
            "idempotency_keys WHERE (scope, key) IN \
             (SELECT scope, key FROM idempotency_keys WHERE expires_at < $1 LIMIT 500)",
            now,
        ),
    ] {
        while query(format!("DELETE FROM {delete}")).bind(before).execute(db).await? == BATCH {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing;

    #[actix_web::test]
    async fn what_is_old_goes_and_what_is_new_or_unsent_stays() {
        for db in testing::databases().await {
            let (old, new) = (now() - time::Duration::days(8), now());
            for (index, sent_at) in [Some(old), Some(new), None].into_iter().enumerate() {
                query(
                    "INSERT INTO outbox (id, destination, subject, event, created_at, next_at, sent_at) \
                     VALUES ($1, 'a', $2, $3, $4, $4, $5)",
                )
                .bind(uuid::Uuid::now_v7())
                .bind(index.to_string())
                .bind(serde_json::json!({}))
                .bind(old)
                .bind(sent_at)
                .execute(&db)
                .await
                .unwrap();
            }
            for at in [old, new] {
                let id = uuid::Uuid::now_v7();
                let seen = query("INSERT INTO inbox (consumer, id, seen_at) VALUES ('a', $1, $2)");
                seen.bind(id).bind(at).execute(&db).await.unwrap();
                query("INSERT INTO idempotency_keys (scope, key, fingerprint, expires_at) VALUES ('a', $1, '', $2)")
                    .bind(id.to_string())
                    .bind(at + time::Duration::days(1))
                    .execute(&db)
                    .await
                    .unwrap();
            }
            prune(&db, now()).await.unwrap();
            for (table, left) in [("outbox", 2), ("inbox", 1), ("idempotency_keys", 1)] {
                let row =
                    query(format!("SELECT COUNT(*) AS rows FROM {table}")).fetch_one(&db).await.unwrap();
                assert_eq!(row.get::<i64>("rows").unwrap(), left, "{table}");
            }
        }
    }
}
