//! Deletes what is old, and the oldest of what is too much.

use shared::db::{Db, DbError, Row, Tx, query};

use super::STEP_S;

/// Rows deleted in one transaction: what arrives meanwhile waits.
const BATCH: i64 = 2000;

/// Rollups may take a quarter of the room.
const ROLLUP_PARTS: i64 = 4;

/// Everything that ended before `before_us`.
pub(super) async fn older(db: &Db, before_us: i64) -> Result<(), DbError> {
    delete_to_the_end(async || delete_traces(db, before_us).await).await?;
    delete_to_the_end(async || delete_logs(db, before_us).await).await?;
    db.transaction(async |tx: &mut Tx| delete_rollups(tx, before_us / 1_000_000 / STEP_S).await).await?;
    Ok(())
}

/// The oldest tenth of spans and logs, as often as the used pages have more than `max_bytes`. Freed pages are used
/// again, so the file does not grow. Rollups stay, unless they are the ones that take the room.
pub(super) async fn larger(db: &Db, max_bytes: i64) -> Result<(), DbError> {
    while used_bytes(db).await? > max_bytes {
        if rollup_bytes(db).await? > max_bytes / ROLLUP_PARTS {
            let sql = "SELECT step AS at FROM rollups ORDER BY step LIMIT 1 \
                OFFSET (SELECT count(*) / 10 FROM rollups)";
            if let Some(step) = tenth(db, sql).await? {
                let deleted = db.transaction(async |tx: &mut Tx| delete_rollups(tx, step + 1).await).await?;
                log::info!(deleted; "the oldest numbers of requests are deleted, because there are too many");
                continue;
            }
        }
        let trace = tenth(
            db,
            "SELECT start_us AS at FROM traces ORDER BY start_us LIMIT 1 \
            OFFSET (SELECT count(*) / 10 FROM traces)",
        )
        .await?;
        let log = tenth(
            db,
            "SELECT at_us AS at FROM logs ORDER BY at_us LIMIT 1 \
            OFFSET (SELECT count(*) / 10 FROM logs)",
        )
        .await?;
        let mut deleted = 0;
        if let Some(before) = trace {
            deleted += delete_to_the_end(async || delete_traces(db, before + 1).await).await?;
        }
        if let Some(before) = log {
            deleted += delete_to_the_end(async || delete_logs(db, before + 1).await).await?;
        }
        log::info!(deleted; "the oldest traces and logs are deleted, because there are too many");
        if deleted == 0 {
            break;
        }
    }
    Ok(())
}

async fn delete_to_the_end(delete: impl AsyncFn() -> Result<u64, DbError>) -> Result<u64, DbError> {
    let mut all = 0;
    loop {
        match delete().await? {
            0 => return Ok(all),
            deleted => all += deleted,
        }
    }
}

async fn tenth(db: &Db, sql: &str) -> Result<Option<i64>, DbError> {
    query(sql).fetch_optional(db).await?.map(|row| row.get("at")).transpose()
}

async fn used_bytes(db: &Db) -> Result<i64, DbError> {
    let row: Row = query(
        "SELECT (p.page_count - f.freelist_count) * s.page_size AS used \
         FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s",
    )
    .fetch_one(db)
    .await?;
    row.get("used")
}

/// Some traces that began before `before_us`, with their spans. Returns how many.
async fn delete_traces(db: &Db, before_us: i64) -> Result<u64, DbError> {
    const OLD: &str = "SELECT trace_id FROM traces WHERE start_us < $1 ORDER BY start_us LIMIT $2";
    // A trace has some ten spans.
    db.transaction(async |tx: &mut Tx| {
        let spans = query(format!("DELETE FROM spans WHERE trace_id IN ({OLD})"));
        spans.bind(before_us).bind(BATCH / 10).execute(&mut *tx).await?;
        let traces = query(format!("DELETE FROM traces WHERE trace_id IN ({OLD})"));
        traces.bind(before_us).bind(BATCH / 10).execute(tx).await
    })
    .await
}

async fn delete_logs(db: &Db, before_us: i64) -> Result<u64, DbError> {
    db.transaction(async |tx: &mut Tx| {
        query("DELETE FROM logs WHERE id IN (SELECT id FROM logs WHERE at_us < $1 ORDER BY at_us LIMIT $2)")
            .bind(before_us)
            .bind(BATCH)
            .execute(tx)
            .await
    })
    .await
}

async fn delete_rollups(tx: &mut Tx, before: i64) -> Result<u64, DbError> {
    query("DELETE FROM rollups WHERE step < $1").bind(before).execute(tx).await
}

/// About as many as the rollups take.
async fn rollup_bytes(db: &Db) -> Result<i64, DbError> {
    let row: Row = query(
        "SELECT COALESCE(SUM(32 + length(service) + length(route) + length(histogram)), 0) AS used FROM rollups",
    )
    .fetch_one(db)
    .await?;
    row.get("used")
}

#[cfg(test)]
mod tests {
    use shared::db::DbConfig;
    use shared::db::testing::sqlite_url;

    use super::super::rollups::{self, tests::served};
    use super::super::{Store, migrations};
    use super::*;

    #[actix_web::test]
    async fn rollups_that_take_too_much_room_are_deleted_themselves_and_no_trace_for_them() {
        let db = Db::open(&DbConfig::at(&sqlite_url()), migrations()).await.unwrap();
        let store = Store::new(db.clone());
        store.add(&[served("/a", 100)], &[]).await.unwrap();
        let spans: Vec<_> = (0..100)
            .flat_map(|step| (0..100).map(move |n| served(&format!("/{}/{n}", "x".repeat(100)), step)))
            .collect();
        db.transaction(async |tx: &mut Tx| rollups::add(tx, &spans.iter().collect::<Vec<_>>()).await)
            .await
            .unwrap();
        let most = 1024 * 1024;
        assert!(used_bytes(&db).await.unwrap() > most);
        store.prune(0, most).await.unwrap();
        assert!(used_bytes(&db).await.unwrap() <= most);
        let traces = query("SELECT count(*) AS number FROM traces").fetch_one(&db).await.unwrap();
        assert_eq!(traces.get::<i64>("number").unwrap(), 1);
        let kept = store.rollups(0, 101).await.unwrap();
        assert!(kept.iter().any(|rollup| rollup.step == 99), "the youngest stay");
    }
}
