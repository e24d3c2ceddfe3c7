//! Records between the code that makes them and the exporter, written already. Nothing blocks, and the memory is
//! bounded.

use std::cell::Cell;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use prometheus::{IntCounterVec, register_int_counter_vec};
use tokio::sync::Notify;

use super::protobuf;

/// Bytes that wait, for each signal. It is the size of the largest request, too: the console accepts 512 KiB.
const LIMIT: usize = 480 * 1024;
/// With so many bytes, the exporter does not wait for its interval.
const BATCH: usize = 256 * 1024;

static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help =
        "Spans and log lines that were dropped, because a queue was full or the collector was unavailable.";
    let labels = ["signal", "error_type"];
    register_int_counter_vec!("otlp_dropped_total", help, &labels)
        .expect("the name of a metric is registered once")
});

thread_local! {
    /// Where a record is written, so that the queue is locked only for a copy.
    static RECORD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Records as the field 2 of `ScopeSpans` or `ScopeLogs`.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) bytes: Vec<u8>,
    pub(super) count: usize,
}

#[derive(Debug)]
struct Shared {
    signal: &'static str,
    records: Mutex<Records>,
    is_batch: Notify,
}

#[derive(Debug)]
pub(super) struct Queue(Arc<Shared>);

/// The other end.
pub(super) struct Waiting(Arc<Shared>);

/// `signal` is `traces` or `logs`.
pub(super) fn queue(signal: &'static str) -> (Queue, Waiting) {
    let shared = Arc::new(Shared { signal, records: Mutex::default(), is_batch: Notify::new() });
    (Queue(shared.clone()), Waiting(shared))
}

impl Queue {
    /// Adds the record that `write` writes.
    pub(super) fn push(&self, write: impl FnOnce(&mut Vec<u8>)) {
        // Empty if `write` logs: then the inner line has a buffer of its own.
        let mut record = RECORD.try_with(Cell::take).unwrap_or_default();
        record.clear();
        write(&mut record);
        self.add(&record);
        // Not at the end of a thread.
        let _ = RECORD.try_with(|kept| kept.set(record));
    }

    fn add(&self, record: &[u8]) {
        let Shared { signal, records, is_batch } = &*self.0;
        let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.bytes.len() + record.len() > LIMIT {
            drop(records);
            return dropped(signal, "queue_full", 1);
        }
        protobuf::bytes(&mut records.bytes, 2, record);
        records.count += 1;
        if records.bytes.len() >= BATCH {
            is_batch.notify_one();
        }
    }
}

impl Waiting {
    pub(super) fn signal(&self) -> &'static str {
        self.0.signal
    }

    /// Waits until there are enough records for a request.
    pub(super) async fn batch(&self) {
        self.0.is_batch.notified().await;
    }

    /// Exchanges what waits for `empty`.
    pub(super) fn take(&self, mut empty: Records) -> Records {
        empty.bytes.clear();
        empty.bytes.shrink_to(BATCH);
        empty.count = 0;
        std::mem::replace(&mut *self.0.records.lock().unwrap_or_else(PoisonError::into_inner), empty)
    }
}

pub(super) fn dropped(signal: &str, why: &str, count: usize) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    DROPPED.with_label_values(&[signal, why]).inc_by(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_and_never_blocks() {
        let (queue, waiting) = queue("test");
        // The head of a record of 1,024 bytes has three.
        let fit = LIMIT / (1024 + 3);
        (0..fit + 3).for_each(|_| queue.push(|out| out.resize(1024, 1)));
        assert_eq!(DROPPED.with_label_values(&["test", "queue_full"]).get(), 3);
        let taken = waiting.take(Records::default());
        assert_eq!((taken.count, taken.bytes.len()), (fit, fit * (1024 + 3)));
        assert_eq!(waiting.take(taken).count, 0);
    }

    #[test]
    fn a_record_may_be_made_while_another_is_written() {
        let (queue, waiting) = queue("nested");
        queue.push(|out| {
            out.push(1);
            queue.push(|out| out.push(2));
            out.push(3);
        });
        assert_eq!(waiting.take(Records::default()).bytes, [18, 1, 2, 18, 2, 1, 3]);
    }
}
