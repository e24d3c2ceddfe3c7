//! Reads of one user that arrive while a query runs share the next query: the *DataLoader* pattern.
//!
//! ```text
//! read ──► waiting ──► one query for all that wait ──► each read gets its user
//! ```
//!
//! In an idle system a read does not wait. There is no cache: a query begins after the reads that it answers, so a
//! deactivation counts at once. A query that takes longer than [`SLOW`] does not hold up the reads behind it: the next
//! query begins in the meantime.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::db::{Db, DbError, Row, query};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::rows::{COLUMNS, user};
use crate::domain::User;
use crate::error::Error;

const SLOW: Duration = Duration::from_millis(100);

/// Clones share the waiting reads.
#[derive(Clone)]
pub(super) struct Loader {
    db: Db,
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
    answer: oneshot::Sender<Result<User, Error>>,
}

/// The one task that takes the waiting reads.
struct Leader {
    loader: Loader,
    is_over: bool,
}

impl Loader {
    pub(super) fn new(db: Db) -> Self {
        Self { db, state: Arc::default() }
    }

    pub(super) async fn user(&self, id: Uuid) -> Result<User, Error> {
        let (answer, answered) = oneshot::channel();
        if self.add(Read { id, answer }) {
            Leader { loader: self.clone(), is_over: false }.start();
        }
        // The leader's thread has ended.
        let lost = |_| Err(DbError::Unavailable(sqlx::Error::WorkerCrashed).into());
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
        let rows = self.rows(reads.iter().map(|read| read.id).collect()).await;
        for Read { id, answer } in reads {
            let found = match &rows {
                Ok(rows) => rows.get(&id).ok_or(Error::NotFound).and_then(|row| Ok(user(row)?)),
                Err(error) => Err(error.problem().into()),
            };
            // Nobody waits if the client has left.
            answer.send(found).unwrap_or_default();
        }
    }

    async fn rows(&self, ids: Vec<Uuid>) -> Result<BTreeMap<Uuid, Row>, DbError> {
        let found = query(format!("SELECT {COLUMNS} FROM users WHERE id = ANY($1)")).bind(ids);
        let rows = found.fetch_all(&self.db).await?;
        rows.into_iter().map(|row| Ok((row.get("id")?, row))).collect()
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
    use shared::db::{DbConfig, testing};

    use super::*;
    use crate::domain::{NewUser, Role};
    use crate::store::{Store, migrations};

    async fn register(store: &Store, number: usize) -> Uuid {
        let new = NewUser {
            email: format!("{number}@example.com").try_into().unwrap(),
            name: "Somebody".to_owned().try_into().unwrap(),
            password_hash: "hash".to_owned(),
            role: Role::Customer,
        };
        store.db().transaction(async |tx| store.register(tx, new).await).await.unwrap().id
    }

    #[actix_web::test]
    async fn sixty_four_concurrent_reads_take_fewer_than_twenty_statements() {
        for url in testing::urls().await {
            let store = Store::new(Db::open(&DbConfig::at(&url), migrations()).await.unwrap());
            let mut ids = Vec::new();
            for number in 0..8 {
                ids.push(register(&store, number).await);
            }
            let statements = || testing::runs("FROM users WHERE id = ");
            let before = statements();
            let users = join_all((0..64).map(|number| store.user(ids[number % 8]))).await;
            let count = statements() - before;
            assert!((1..20).contains(&count), "{}: {count}", store.db().kind());
            for (number, user) in users.into_iter().enumerate() {
                assert_eq!(user.unwrap().id, ids[number % 8]);
            }
        }
    }
}
