//! Reads of rows by their id: those that arrive while a query runs share the next query (the *DataLoader* pattern).
//!
//! In an idle system a read does not wait. There is no cache: a query begins after the reads that it answers, so each
//! sees what was committed before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::batching::{self, Batched, Queue, Waiting};
use super::{Db, DbError, Row, query};

/// The row, if there is one. Several reads may fail with the same error.
type Answer = Result<Option<Arc<Row>>, Arc<DbError>>;

/// Clones share the waiting reads.
#[derive(Clone)]
pub struct Loader(Arc<Reads>);

struct Reads {
    db: Db,
    sql: String,
    queue: Queue<Uuid, Answer>,
}

impl Loader {
    /// `sql` selects the rows whose column `id` is `= ANY($1)`.
    pub fn new(db: Db, sql: String) -> Self {
        Self(Arc::new(Reads { db, sql, queue: Queue::default() }))
    }

    pub async fn row(&self, id: Uuid) -> Answer {
        batching::call(&self.0, id).await.unwrap_or_else(|lost| Err(Arc::new(lost)))
    }
}

impl Batched for Reads {
    type Request = Uuid;
    type Answer = Answer;

    const MAX: usize = usize::MAX;

    fn queue(&self) -> &Queue<Uuid, Answer> {
        &self.queue
    }

    /// One query for all reads. If it fails, all of them fail.
    async fn run(&self, reads: Vec<Waiting<Uuid, Answer>>) {
        let rows = self.rows(reads.iter().map(|read| read.request).collect()).await.map_err(Arc::new);
        for read in reads {
            let row = rows.as_ref().map(|rows| rows.get(&read.request).cloned()).map_err(Arc::clone);
            read.answer(row);
        }
    }
}

impl Reads {
    async fn rows(&self, ids: Vec<Uuid>) -> Result<BTreeMap<Uuid, Arc<Row>>, DbError> {
        let rows = query(&*self.sql).bind(ids).fetch_all(&self.db).await?;
        rows.into_iter().map(|row| Ok((row.get("id")?, Arc::new(row)))).collect()
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
            assert!((1..20).contains(&count), "{}: {count}", loader.0.db.kind());
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
            loader.0.db.close().await;
            for failed in join_all(ids.iter().map(|id| loader.row(*id))).await {
                assert!(matches!(&*failed.unwrap_err(), DbError::Unavailable(_)));
            }
        }
    }
}
