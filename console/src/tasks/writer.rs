//! Writes what arrives: one task, many rows in a transaction. The queue is short; when it is full, senders must
//! come again, and no request of theirs waits for the disk.

use std::sync::{Arc, Mutex, PoisonError};

use shared::stop::Stop;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::{LogRecord, Span, Traffic};
use crate::error::Error;
use crate::store::Store;

/// Requests in the queue; each has at most [`crate::routes::otlp::BODY_LIMIT`] bytes.
const QUEUE: usize = 8;
/// Requests whose bodies are read at a time.
const READING: usize = 16;
/// A span or log line that is further in the future, in microseconds, comes from a wrong clock and is dropped.
const MOST_AHEAD_US: i64 = 60_000_000;
/// Rows after which a transaction takes no more.
const BATCH: usize = 5000;

/// The content of one request.
#[derive(Debug)]
pub enum Arrival {
    Spans(Vec<Span>),
    Logs(Vec<LogRecord>),
}

/// The sender's end of the queue.
#[derive(Clone)]
pub struct Arrivals {
    queue: Sender<Arrival>,
    reading: Arc<Semaphore>,
}

pub fn queue() -> (Arrivals, Receiver<Arrival>) {
    let (sender, receiver) = channel(QUEUE);
    (Arrivals { queue: sender, reading: Arc::new(Semaphore::new(READING)) }, receiver)
}

impl Arrivals {
    /// A place for a request whose body is read now.
    pub fn begin(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.reading.clone().try_acquire_owned().map_err(|_| Error::QueueFull)
    }

    pub fn put(&self, arrival: Arrival) -> Result<(), Error> {
        self.queue.try_send(arrival).map_err(|_| Error::QueueFull)
    }
}

/// Writes until `stop`, and then what is left in the queue.
pub async fn write(mut arrivals: Receiver<Arrival>, store: Store, traffic: Arc<Mutex<Traffic>>, stop: Stop) {
    loop {
        let first = tokio::select! {
            biased;
            arrival = arrivals.recv() => arrival,
            () = stop.requested() => return,
        };
        let Some(first) = first else { return };
        let (mut spans, mut logs) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(arrival) = next {
            match arrival {
                Arrival::Spans(more) => spans.extend(more),
                Arrival::Logs(more) => logs.extend(more),
            }
            next = if spans.len() + logs.len() < BATCH { arrivals.try_recv().ok() } else { None };
        }
        drop_the_future(&mut spans, &mut logs, now_us());
        observe(&traffic, &spans);
        if let Err(error) = store.add(&spans, &logs).await {
            log::error!(error:%, spans = spans.len(), logs = logs.len(); "traces and logs cannot be written");
        }
    }
}

/// The map and the pruning go by the times of spans and lines, so none may be far ahead.
fn drop_the_future(spans: &mut Vec<Span>, logs: &mut Vec<LogRecord>, now_us: i64) {
    let before = spans.len() + logs.len();
    spans.retain(|span| span.end_us() <= now_us + MOST_AHEAD_US);
    logs.retain(|log| log.at_us <= now_us + MOST_AHEAD_US);
    let dropped = before - spans.len() - logs.len();
    if dropped > 0 {
        log::warn!(count = dropped; "traces and log lines from a clock that is ahead are dropped");
    }
}

fn observe(traffic: &Mutex<Traffic>, spans: &[Span]) {
    let now_us = now_us();
    let mut traffic = traffic.lock().unwrap_or_else(PoisonError::into_inner);
    spans.iter().for_each(|span| traffic.observe(span, now_us));
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    let nanoseconds = shared::db::now().unix_timestamp_nanos();
    i64::try_from(nanoseconds / 1000).unwrap_or(i64::MAX)
}
