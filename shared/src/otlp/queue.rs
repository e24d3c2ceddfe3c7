//! A bounded queue between the code that records and the exporter. It never blocks.

use std::sync::{Arc, LazyLock};

use prometheus::{IntCounterVec, register_int_counter_vec};
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Records in a queue.
const LIMIT: usize = 4096;
/// Records in one request. With so many, the exporter does not wait for its interval.
const BATCH: usize = 512;

static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help =
        "Spans and log lines that were dropped, because a queue was full or the collector was unavailable.";
    let labels = ["signal", "error_type"];
    register_int_counter_vec!("otlp_dropped_total", help, &labels)
        .expect("the name of a metric is registered once")
});

/// `signal` is `traces` or `logs`.
pub(super) fn dropped(signal: &str, why: &str, count: usize) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    DROPPED.with_label_values(&[signal, why]).inc_by(count);
}

#[derive(Debug)]
pub(super) struct Queue<T> {
    signal: &'static str,
    sender: Sender<T>,
    is_batch: Arc<Notify>,
}

/// The other end.
pub(super) struct Waiting<T> {
    receiver: Receiver<T>,
    is_batch: Arc<Notify>,
}

pub(super) fn queue<T>(signal: &'static str) -> (Queue<T>, Waiting<T>) {
    let (sender, receiver) = channel(LIMIT);
    let is_batch = Arc::new(Notify::new());
    (Queue { signal, sender, is_batch: is_batch.clone() }, Waiting { receiver, is_batch })
}

impl<T> Queue<T> {
    pub(super) fn push(&self, record: T) {
        if self.sender.try_send(record).is_err() {
            dropped(self.signal, "queue_full", 1);
        }
        if self.sender.capacity() <= LIMIT - BATCH {
            self.is_batch.notify_one();
        }
    }
}

impl<T> Waiting<T> {
    /// Waits until the queue has a whole batch.
    pub(super) async fn batch(&self) {
        self.is_batch.notified().await;
    }

    /// What waits now, in batches.
    pub(super) fn take_all(&mut self) -> Vec<Vec<T>> {
        std::iter::from_fn(|| self.take()).collect()
    }

    /// At most [`BATCH`] records; `None` if there are none.
    fn take(&mut self) -> Option<Vec<T>> {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let Ok(record) = self.receiver.try_recv() else { break };
            batch.push(record);
        }
        (!batch.is_empty()).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_and_never_blocks() {
        let (queue, mut waiting) = queue("test");
        (0..LIMIT + 3).for_each(|number| queue.push(number));
        assert_eq!(DROPPED.with_label_values(&["test", "queue_full"]).get(), 3);
        let taken: Vec<_> = waiting.take_all().into_iter().flatten().collect();
        assert_eq!(taken, (0..LIMIT).collect::<Vec<_>>());
    }
}
