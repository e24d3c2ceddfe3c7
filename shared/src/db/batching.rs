//! Batches: while one runs, new requests wait. The next batch takes them, up to a maximum.
//!
//! ```text
//! call ──► waiting ──► one batch for all that wait ──► each call gets its answer
//! ```
//!
//! In an idle system a request does not wait. After a batch with several requests, there may be a [pause](CommitDelay), in
//! which more arrive. A batch that takes longer than [`SLOW`] does not hold up the requests behind it: the next batch
//! begins in the meantime.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{CommitDelay, DbError};

const SLOW: Duration = Duration::from_millis(100);

/// Handles requests in batches.
pub(crate) trait Batched: 'static {
    type Request: Send + 'static;
    type Answer: Send + 'static;

    /// The most requests in one batch.
    const MAX: usize;

    fn queue(&self) -> &Queue<Self::Request, Self::Answer>;

    /// The pause between batches, if there is one.
    fn delay(&self) -> Option<CommitDelay> {
        None
    }

    /// Answers each request. Those without an answer have failed.
    async fn run(&self, batch: Vec<Waiting<Self::Request, Self::Answer>>);
}

/// The requests that wait for a batch.
pub(crate) struct Queue<R, A>(Mutex<State<R, A>>);

struct State<R, A> {
    waiting: VecDeque<Waiting<R, A>>,
    /// Whether a task takes the waiting requests.
    has_leader: bool,
}

pub(crate) struct Waiting<R, A> {
    pub request: R,
    answer: oneshot::Sender<A>,
}

/// The one task that takes the waiting requests.
struct Leader<B: Batched> {
    batched: Arc<B>,
    delay: Option<CommitDelay>,
    is_over: bool,
}

/// Handles the request together with others that have arrived.
///
/// # Errors
/// [`DbError::Unavailable`] if the thread that runs the batch has ended.
pub(crate) async fn call<B: Batched>(batched: &Arc<B>, request: B::Request) -> Result<B::Answer, DbError> {
    let (waiting, answered) = Waiting::new(request);
    if batched.queue().add(waiting) {
        Leader { batched: batched.clone(), delay: batched.delay(), is_over: false }.start();
    }
    answered.await.map_err(|_| DbError::Unavailable(sqlx::Error::WorkerCrashed))
}

impl<R, A> Queue<R, A> {
    /// Returns whether a leader must be started.
    fn add(&self, waiting: Waiting<R, A>) -> bool {
        let mut state = self.state();
        state.waiting.push_back(waiting);
        !std::mem::replace(&mut state.has_leader, true)
    }

    fn state(&self) -> MutexGuard<'_, State<R, A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R, A> Default for Queue<R, A> {
    fn default() -> Self {
        Self(Mutex::new(State { waiting: VecDeque::new(), has_leader: false }))
    }
}

impl<R, A> Waiting<R, A> {
    pub(crate) fn new(request: R) -> (Self, oneshot::Receiver<A>) {
        let (answer, answered) = oneshot::channel();
        (Self { request, answer }, answered)
    }

    /// Drops the request first. This frees its idempotency key before the client has the response.
    pub(crate) fn answer(self, answer: A) {
        drop(self.request);
        // Nobody waits if the client has left.
        drop(self.answer.send(answer));
    }
}

impl<B: Batched> Leader<B> {
    /// Starts a task of its own, because the request that started it may be cancelled when its client leaves.
    fn start(mut self) {
        actix_web::rt::spawn(async move {
            let batched = self.batched.clone();
            while let Some(batch) = self.next() {
                if let Some(delay) = &mut self.delay {
                    delay.started(batch.len());
                }
                let mut running = pin!(batched.run(batch));
                tokio::select! {
                    () = &mut running => {}
                    () = tokio::time::sleep(SLOW) => {
                        self.start();
                        return running.await;
                    }
                }
                self.pause().await;
            }
        });
    }

    /// Does not pause while there are enough requests for a full batch.
    async fn pause(&mut self) {
        if let Some(delay) = &mut self.delay {
            delay.ended();
            if self.batched.queue().state().waiting.len() < B::MAX {
                delay.wait().await;
            }
        }
    }

    /// The requests that wait now. If there are none, the leader ends.
    fn next(&mut self) -> Option<Vec<Waiting<B::Request, B::Answer>>> {
        let mut state = self.batched.queue().state();
        // Drop requests whose client has left.
        state.waiting.retain(|waiting| !waiting.answer.is_closed());
        let count = state.waiting.len().min(B::MAX);
        if count == 0 {
            self.is_over = true;
            state.has_leader = false;
        }
        (count > 0).then(|| state.waiting.drain(..count).collect())
    }
}

impl<B: Batched> Drop for Leader<B> {
    /// If the thread ends before the leader has ended, the waiting requests fail.
    fn drop(&mut self) {
        if !self.is_over {
            let mut state = self.batched.queue().state();
            state.waiting.clear();
            state.has_leader = false;
        }
    }
}
