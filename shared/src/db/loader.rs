//! Reads of rows by their id: those that arrive while a query runs share the next query (the *DataLoader* pattern).
//!
//! ```text
//! read ──► waiting ──► one query for all that wait ──► each read gets its row
//! ```
//!
//! In an idle system a read does not wait. There is no cache: a query begins after the reads that it answers, so each
//! sees what was committed before it. A query that takes longer than [`SLOW`] does not hold up the reads behind it: the
//! next query begins in the meantime.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Db, DbError, Row, query};

const SLOW: Duration = Duration::from_millis(100);

/// The row, if there is one. Several reads may fail with the same error.
type Answer = Result<Option<Arc<Row>>, Arc<DbError>>;

/// Clones share the waiting reads.
#[derive(Clone)]
pub struct Loader {
    db: Db,
    sql: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Read>,
    /// Whether a task takes the waiting reads.
    has_leader: bool,
}

struct Read {
    id: Uuid,
    answer: oneshot::Sender<Answer>,
}

/// The one task that takes the waiting reads.
struct Leader {
    loader: Loader,
    is_over: bool,
}

impl Loader {
    /// `sql` selects the rows whose column `id` is `= ANY($1)`.
    pub fn new(db: Db, sql: String) -> Self {
        Self { db, sql: sql.into(), state: Arc::default() }
    }

    pub async fn row(&self, id: Uuid) -> Answer {
        let (answer, answered) = oneshot::channel();
        if self.add(Read { id, answer }) {
            Leader { loader: self.clone(), is_over: false }.start();
        }
        // The leader's thread has ended.
        let lost = |_| Err(Arc::new(DbError::Unavailable(sqlx::Error::WorkerCrashed)));
        answered.await.unwrap_or_else(lost)
    }

    /// Returns whether a leader must be started.
    fn add(&self, read: Read) -> bool {
        let mut state = self.state();
        state.waiting.push(read);
        !std::mem::replace(&mut state.has_leader, true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers all `reads` with one query. If it fails, all of them fail.
    async fn answer(&self, reads: Vec<Read>) {
        let rows = self.rows(reads.iter().map(|read| read.id).collect()).await.map_err(Arc::new);
        for Read { id, answer } in reads {
            let row = rows.as_ref().map(|rows| rows.get(&id).cloned()).map_err(Arc::clone);
            // Nobody waits if the client has left.
            answer.send(row).unwrap_or_default();
        }
    }

    async fn rows(&self, ids: Vec<Uuid>) -> Result<BTreeMap<Uuid, Arc<Row>>, DbError> {
        let rows = query(&*self.sql).bind(ids).fetch_all(&self.db).await?;
        rows.into_iter().map(|row| Ok((row.get("id")?, Arc::new(row)))).collect()
    }
}

impl Leader {
    /// Starts a task of its own, because the request of a read is cancelled when its client leaves.
    fn start(mut self) {
        actix_web::rt::spawn(async move {
            let loader = self.loader.clone();
            while let Some(reads) = self.next() {
                let mut answering = pin!(loader.answer(reads));
                tokio::select! {
                    () = &mut answering => {}
                    () = tokio::time::sleep(SLOW) => {
                        self.start();
                        return answering.await;
                    }
                }
            }
        });
    }

    /// The reads that wait now. If there are none, the leader ends.
    fn next(&mut self) -> Option<Vec<Read>> {
        let mut state = self.loader.state();
        if state.waiting.is_empty() {
            self.is_over = true;
            state.has_leader = false;
            return None;
        }
        Some(std::mem::take(&mut state.waiting))
    }
}

impl Drop for Leader {
    /// If the thread ends before the leader has ended, the waiting reads fail.
    fn drop(&mut self) {
        if !self.is_over {
            let mut state = self.loader.state();
            state.waiting.clear();
            state.has_leader = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use futures_util::poll;

    use super::*;
    use crate::db::testing;

    /// A loader of a table on each database, and the ids of its rows.
    async fn loaders() -> Vec<(Loader, Vec<Uuid>)> {
        let mut loaders = Vec::new();
        for db in testing::databases().await {
            let id = if db.kind() == "sqlite" { "TEXT" } else { "uuid" };
            query(format!("CREATE TABLE loaded (id {id} PRIMARY KEY)")).execute(&db).await.unwrap();
            let ids: Vec<_> = (0..8).map(|_| Uuid::now_v7()).collect();
            for id in &ids {
                query("INSERT INTO loaded VALUES ($1)").bind(*id).execute(&db).await.unwrap();
            }
            loaders.push((Loader::new(db, "SELECT id FROM loaded WHERE id = ANY($1)".to_owned()), ids));
        }
        loaders
    }

    #[actix_web::test]
    async fn sixty_four_concurrent_reads_take_fewer_than_twenty_statements() {
        for (loader, ids) in loaders().await {
            let statements = || testing::runs("FROM loaded WHERE id");
            let before = statements();
            let rows = join_all((0..64).map(|number| loader.row(ids[number % 8]))).await;
            let count = statements() - before;
            assert!((1..20).contains(&count), "{}: {count}", loader.db.kind());
            for (number, row) in rows.into_iter().enumerate() {
                assert_eq!(row.unwrap().unwrap().get::<Uuid>("id").unwrap(), ids[number % 8]);
            }
        }
    }

    #[actix_web::test]
    async fn a_read_that_is_cancelled_does_not_end_the_query_of_others() {
        for (loader, ids) in loaders().await {
            let mut cancelled = Box::pin(loader.row(ids[0]));
            assert!(poll!(&mut cancelled).is_pending());
            let mut other = Box::pin(loader.row(ids[1]));
            assert!(poll!(&mut other).is_pending());
            drop(cancelled);
            assert!(other.await.unwrap().is_some());
        }
    }

    #[actix_web::test]
    async fn a_failed_query_fails_each_of_its_reads_and_an_unknown_id_has_no_row() {
        for (loader, ids) in loaders().await {
            assert!(loader.row(Uuid::now_v7()).await.unwrap().is_none());
            loader.db.close().await;
            for failed in join_all(ids.iter().map(|id| loader.row(*id))).await {
                assert!(matches!(&*failed.unwrap_err(), DbError::Unavailable(_)));
            }
        }
    }
}
