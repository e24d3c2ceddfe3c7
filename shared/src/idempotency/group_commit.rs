//! Group commit: while a transaction runs, new requests wait. The next transaction has the effects of all of them, at
//! most 32.
//!
//! ```text
//! once ──► waiting ──► at most 32 in one transaction ──► responses
//!                          └── cannot share it, or it failed: each in its own transaction ──► response
//! ```
//!
//! A request does not wait if the last batch has ended.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use futures_util::future::join_all;
use prometheus::{Histogram, register_histogram};

use super::{Claim, Outcome, StoredResponse, claim_all};
use crate::db::batching::{self, Batched, Queue};
use crate::db::{CommitDelay, Db, DbError, Tx};
use crate::panics::unless_panics;
use crate::problem::Problem;
use crate::trace::{Current, SpanContext};

/// Requests in one transaction. More would keep their rows locked for longer, and hardly save anything.
const MAX_REQUESTS: usize = 32;

#[allow(clippy::expect_used, reason = "registered once, under a unique name")]
static SIZES: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "Requests whose effects one transaction committed.";
    register_histogram!("group_commit_requests", help, vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
        .expect("the name is unique")
});

/// What the requests of an endpoint do, in transactions that they may share. The value of a request is known before its
/// effect, and with it the response. So one statement claims the keys and stores the responses.
#[async_trait(?Send)]
pub trait Operation: Send + Sync + 'static {
    type Request: Send + 'static;
    type Value: Send + 'static;
    type Error: From<DbError> + From<Problem> + Display + Send + 'static;

    /// Reads the value of each request. A request with an error does not share the transaction: it gets one of its own, and
    /// the error in it, or the stored response if it is a repeated request.
    async fn values(&self, tx: &mut Tx, requests: &[&Self::Request]) -> Values<Self>;

    fn response(&self, value: &Self::Value) -> StoredResponse;

    /// Takes the effects of all requests. After an error none has an effect, and if there were several, each gets its own
    /// transaction. The rows that other transactions wait for should be written last.
    async fn take_effect(
        &self,
        tx: &mut Tx,
        requests: &[(&Self::Request, &Self::Value)],
    ) -> Result<(), Self::Error>;
}

/// One for each request, in their order.
pub type Values<O> =
    Result<Vec<Result<<O as Operation>::Value, <O as Operation>::Error>>, <O as Operation>::Error>;

/// Runs an operation at most once for each key. Clones share the transactions.
pub struct GroupCommit<O: Operation>(Arc<Group<O>>);

struct Group<O: Operation> {
    db: Db,
    operation: O,
    waiting: Queue<Claimed<O>, Answer<O>>,
}

struct Claimed<O: Operation> {
    claim: Claim,
    request: O::Request,
    /// The trace of the request.
    current: Current,
}

type Answer<O> = Result<Outcome<<O as Operation>::Value>, <O as Operation>::Error>;
type Waiting<O> = batching::Waiting<Claimed<O>, Answer<O>>;

impl<O: Operation> GroupCommit<O> {
    pub fn new(db: Db, operation: O) -> Self {
        Self(Arc::new(Group { db, operation, waiting: Queue::default() }))
    }

    pub fn operation(&self) -> &O {
        &self.0.operation
    }

    /// Runs the request in one transaction with its claim, alone or together with others. If its client leaves before its
    /// batch begins, it does not run. If its client leaves later, it runs to its end.
    ///
    /// # Errors
    /// Those of the operation and of [`Claim::once`].
    pub async fn once(&self, claim: Claim, request: O::Request) -> Result<Outcome<O::Value>, O::Error> {
        let current = Current::with(Clone::clone).unwrap_or_else(|| Current::new(None, SpanContext::NONE));
        let lost = || Err(DbError::Unavailable(sqlx::Error::WorkerCrashed).into());
        batching::call(&self.0, Claimed { claim, request, current }).await.unwrap_or_else(lost)
    }

    /// The stored response of a repeated request, or else `error`: it failed before the transaction.
    ///
    /// # Errors
    /// Also those of the database.
    pub async fn replay_or(&self, claim: Claim, error: O::Error) -> Result<Outcome<O::Value>, O::Error> {
        let mut tx = self.0.db.begin().await?;
        let replay = claim.first_or_replay::<O::Error>(&mut tx, None).await?;
        replay.map(Outcome::Replayed).ok_or(error)
    }
}

impl<O: Operation> Batched for Group<O> {
    type Request = Claimed<O>;
    type Answer = Answer<O>;

    const MAX: usize = MAX_REQUESTS;

    fn queue(&self) -> &Queue<Claimed<O>, Answer<O>> {
        &self.waiting
    }

    fn delay(&self) -> Option<CommitDelay> {
        None
    }

    async fn run(&self, batch: Vec<Waiting<O>>) {
        let rest = if batch.len() > 1 { self.run_together(batch).await } else { batch };
        join_all(rest.into_iter().map(|waiting| self.run_alone(waiting))).await;
    }
}

impl<O: Operation> Group<O> {
    /// Returns the requests that need a transaction of their own.
    async fn run_together(&self, batch: Vec<Waiting<O>>) -> Vec<Waiting<O>> {
        // The transaction is in the trace of the first request, and linked to the others.
        let mut traces = batch.iter().map(|waiting| waiting.request.current.clone());
        let Some(first) = traces.next() else { return batch };
        let mut tx = match first.scope(self.db.begin_with_short_lock_timeout()).await {
            Ok(tx) => tx,
            // None of them would get a connection: they have waited long enough.
            Err(error) => {
                let problem = error.problem();
                batch.into_iter().for_each(|waiting| waiting.answer(Err(problem.clone().into())));
                return Vec::new();
            }
        };
        tx.link(traces.map(|current| current.context().clone()));
        let requests: Vec<_> = batch.iter().map(|waiting| &waiting.request).collect();
        let mut done = match unless_panics(self.together(tx, &requests)).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                log::info!(count = batch.len(), error:%; "a transaction of several requests failed: each gets its own");
                return batch;
            }
            Err(panicked) => {
                log::error!(count = batch.len(), error:% = panicked; "a transaction of several requests failed: each gets its own");
                return batch;
            }
        };
        let mut rest = Vec::new();
        for (index, waiting) in batch.into_iter().enumerate() {
            match done.remove(&index) {
                Some(outcome) => waiting.answer(Ok(outcome)),
                None => rest.push(waiting),
            }
        }
        rest
    }

    /// The outcomes, by the index of the request. The others need a transaction of their own.
    async fn together(
        &self,
        mut tx: Tx,
        batch: &[&Claimed<O>],
    ) -> Result<BTreeMap<usize, Outcome<O::Value>>, O::Error> {
        let requests: Vec<_> = batch.iter().map(|claimed| &claimed.request).collect();
        let mut wanted = Vec::with_capacity(batch.len());
        let values = self.operation.values(&mut tx, &requests).await?;
        for (index, (claimed, value)) in batch.iter().zip(values).enumerate() {
            if let Ok(value) = value {
                wanted.push((index, *claimed, self.operation.response(&value), value));
            }
        }
        let claims: Vec<_> =
            wanted.iter().map(|(_, claimed, response, _)| (&claimed.claim, response)).collect();
        let mut are_free = claim_all(&mut tx, &claims).await?.into_iter();
        wanted.retain(|_| are_free.next() == Some(true));
        if !wanted.is_empty() {
            let effects: Vec<_> =
                wanted.iter().map(|(_, claimed, _, value)| (&claimed.request, value)).collect();
            self.operation.take_effect(&mut tx, &effects).await?;
            tx.commit().await?;
            SIZES.observe(wanted.len() as f64);
        }
        let done = |(index, _, answer, value)| (index, Outcome::Done { value, answer });
        Ok(wanted.into_iter().map(done).collect())
    }

    async fn run_alone(&self, waiting: Waiting<O>) {
        let Claimed { claim, request, current } = &waiting.request;
        let answer = unless_panics(current.clone().scope(self.alone(claim, request))).await;
        let panicked = |panicked| Err(Problem::internal().because(&panicked).into());
        waiting.answer(answer.unwrap_or_else(panicked));
    }

    async fn alone(&self, claim: &Claim, request: &O::Request) -> Answer<O> {
        let mut tx = self.db.begin().await?;
        let known = self.operation.values(&mut tx, &[request]).await.and_then(only);
        let known = match known.map(|value| (self.operation.response(&value), value)) {
            // PostgreSQL runs no other statement after one that has failed.
            Err(error) if tx.has_failed() => return Err(error),
            known => known,
        };
        let response = known.as_ref().ok().map(|(response, _)| response);
        if let Some(replay) = claim.first_or_replay::<O::Error>(&mut tx, response).await? {
            return Ok(Outcome::Replayed(replay));
        }
        let (answer, value) = known?;
        self.operation.take_effect(&mut tx, &[(request, &value)]).await?;
        tx.commit().await?;
        SIZES.observe(1.0);
        Ok(Outcome::Done { value, answer })
    }
}

/// The value of the only request.
fn only<T, E: From<DbError>>(values: Vec<Result<T, E>>) -> Result<T, E> {
    let missing = || Err(DbError::Contradiction("a request has no value".to_owned()).into());
    values.into_iter().next().unwrap_or_else(missing)
}

impl<O: Operation> Clone for GroupCommit<O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
