//! Group commit: while a transaction runs, new requests wait. The next transaction has the effects of all of them, at
//! most 32.
//!
//! ```text
//! once ──► waiting ──► at most 32 in one transaction ──► responses
//!                          └── refused, repeated, or the transaction failed: each in its own ──► response
//! ```
//!
//! A request waits only while a batch runs.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use futures_util::future::join_all;
use prometheus::{Histogram, register_histogram};

use super::{Claim, Outcome, StoredResponse, claim_all};
use crate::db::batching::{self, Batched, Queue};
use crate::db::{Db, DbError, Tx};
use crate::panics::catch_panic;
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

/// The work of one endpoint. [`Operation::plan`] computes the result of each request, and writes nothing. So the response
/// is known before [`Operation::apply`], and one statement claims the keys and stores the responses.
#[async_trait(?Send)]
pub trait Operation: Send + Sync + 'static {
    type Request: Send + 'static;
    type Plan: Send + 'static;
    type Error: From<DbError> + From<Problem> + Display + Send + 'static;

    /// A request whose plan fails is planned again in its own transaction. There it gets the stored response if it is
    /// repeated, and else the error.
    async fn plan(&self, tx: &mut Tx, requests: &[&Self::Request]) -> Plans<Self>;

    fn response(&self, plan: &Self::Plan) -> StoredResponse;

    /// Writes the effects of all requests. After an error none has an effect, and if there were several, each gets its own
    /// transaction. The rows that other transactions wait for should be written last.
    async fn apply(&self, tx: &mut Tx, plans: &[(&Self::Request, &Self::Plan)]) -> Result<(), Self::Error>;
}

/// The plans of the requests, in their order. The inner error is that of one request, the outer one of all.
pub type Plans<O> =
    Result<Vec<Result<<O as Operation>::Plan, <O as Operation>::Error>>, <O as Operation>::Error>;

/// Runs an operation at most once for each key.
pub struct GroupCommit<O: Operation>(Arc<Group<O>>);

struct Group<O: Operation> {
    db: Db,
    operation: O,
    waiting: Queue<Pending<O>, Answer<O>>,
}

struct Pending<O: Operation> {
    claim: Claim,
    request: O::Request,
    /// The trace of the request.
    current: Current,
}

/// A request of a batch that can be applied if its key is free.
struct Planned<'a, O: Operation> {
    /// Its position in the batch.
    index: usize,
    pending: &'a Pending<O>,
    plan: O::Plan,
    response: StoredResponse,
}

type Answer<O> = Result<Outcome<<O as Operation>::Plan>, <O as Operation>::Error>;
type Waiting<O> = batching::Waiting<Pending<O>, Answer<O>>;

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
    pub async fn once(&self, claim: Claim, request: O::Request) -> Result<Outcome<O::Plan>, O::Error> {
        let current = Current::with(Clone::clone).unwrap_or_else(|| Current::new(None, SpanContext::NONE));
        batching::call(&self.0, Pending { claim, request, current }).await?
    }

    /// For a request that has failed before its transaction: the stored response if it is repeated, and else `error`. Does
    /// not keep the claim.
    ///
    /// # Errors
    /// Also those of the database.
    pub async fn replay_or(&self, claim: Claim, error: O::Error) -> Result<Outcome<O::Plan>, O::Error> {
        let mut tx = self.0.db.begin().await?;
        let replay = claim.first_or_replay::<O::Error>(&mut tx, None).await?;
        replay.map(Outcome::Replayed).ok_or(error)
    }
}

impl<O: Operation> Batched for Group<O> {
    type Request = Pending<O>;
    type Answer = Answer<O>;

    const MAX: usize = MAX_REQUESTS;

    fn queue(&self) -> &Queue<Pending<O>, Answer<O>> {
        &self.waiting
    }

    async fn run(&self, batch: Vec<Waiting<O>>) {
        let rest = if batch.len() > 1 { self.run_together(batch).await } else { batch };
        // At the same time, as if there were no batches. The pool limits the connections.
        join_all(rest.into_iter().map(|waiting| self.run_alone(waiting))).await;
    }
}

impl<O: Operation> Group<O> {
    /// Returns the requests that need a transaction of their own.
    async fn run_together(&self, batch: Vec<Waiting<O>>) -> Vec<Waiting<O>> {
        let traces = batch.iter().map(|waiting| waiting.request.current.clone());
        let tx = match self.db.begin_in(traces).await {
            Ok(tx) => tx,
            // None of them would get a connection: they have waited long enough.
            Err(error) => {
                let problem = error.problem();
                batch.into_iter().for_each(|waiting| waiting.answer(Err(problem.clone().into())));
                return Vec::new();
            }
        };
        let requests: Vec<_> = batch.iter().map(|waiting| &waiting.request).collect();
        let mut done = match catch_panic(self.together(tx, &requests)).await {
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
        batch: &[&Pending<O>],
    ) -> Result<BTreeMap<usize, Outcome<O::Plan>>, O::Error> {
        let requests: Vec<_> = batch.iter().map(|pending| &pending.request).collect();
        let plans = self.operation.plan(&mut tx, &requests).await?;
        let mut planned = Vec::with_capacity(batch.len());
        for (index, (pending, plan)) in batch.iter().zip(plans).enumerate() {
            if let Ok(plan) = plan {
                planned.push(Planned {
                    index,
                    pending: *pending,
                    response: self.operation.response(&plan),
                    plan,
                });
            }
        }
        let claims: Vec<_> =
            planned.iter().map(|planned| (&planned.pending.claim, &planned.response)).collect();
        let are_free = claim_all(&mut tx, &claims).await?;
        let planned = planned.into_iter().zip(are_free).filter(|(_, is_free)| *is_free);
        let planned: Vec<_> = planned.map(|(planned, _)| planned).collect();
        if planned.is_empty() {
            return Ok(BTreeMap::new());
        }
        let plans: Vec<_> = planned.iter().map(|planned| (&planned.pending.request, &planned.plan)).collect();
        self.operation.apply(&mut tx, &plans).await?;
        tx.commit().await?;
        SIZES.observe(planned.len() as f64);
        let done =
            |Planned { index, response, plan, .. }| (index, Outcome::Done { value: plan, answer: response });
        Ok(planned.into_iter().map(done).collect())
    }

    async fn run_alone(&self, waiting: Waiting<O>) {
        let Pending { claim, request, current } = &waiting.request;
        let answer = catch_panic(current.clone().scope(self.alone(claim, request))).await;
        waiting.answer(answer.unwrap_or_else(|panicked| Err(Problem::internal().because(&panicked).into())));
    }

    async fn alone(&self, claim: &Claim, request: &O::Request) -> Answer<O> {
        let mut tx = self.db.begin().await?;
        let plan = self.operation.plan(&mut tx, &[request]).await.and_then(only);
        let planned = match plan.map(|plan| (self.operation.response(&plan), plan)) {
            // PostgreSQL runs no other statement after one that has failed.
            Err(error) if tx.has_failed() => return Err(error),
            planned => planned,
        };
        let response = planned.as_ref().ok().map(|(response, _)| response);
        if let Some(replay) = claim.first_or_replay::<O::Error>(&mut tx, response).await? {
            return Ok(Outcome::Replayed(replay));
        }
        let (answer, plan) = planned?;
        self.operation.apply(&mut tx, &[(request, &plan)]).await?;
        tx.commit().await?;
        SIZES.observe(1.0);
        Ok(Outcome::Done { value: plan, answer })
    }
}

/// The plan of the only request.
fn only<T, E: From<DbError>>(plans: Vec<Result<T, E>>) -> Result<T, E> {
    let missing = || Err(DbError::Contradiction("a request has no plan".to_owned()).into());
    plans.into_iter().next().unwrap_or_else(missing)
}
