//! Exports spans to a collector every second: OTLP over HTTP, as JSON.
//!
//! Recording a span never blocks. Spans are dropped if the queue is full or the collector is unavailable.

use std::sync::OnceLock;
use std::time::Duration;

use actix_web::http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{Kind, Span};
use crate::http::{Call, exchange};
use crate::stop::Stop;

/// Spans in the queue.
const QUEUE_LIMIT: usize = 2048;
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(3);

/// The queue of this process; set by [`start`].
static SPANS: OnceLock<Sender<Ended>> = OnceLock::new();

/// A finished span.
pub(super) struct Ended {
    pub(super) span: Span,
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) took: Duration,
    pub(super) failed: bool,
}

pub(super) fn record(ended: impl FnOnce() -> Ended) {
    if let Some(room) = SPANS.get().and_then(|spans| spans.try_reserve().ok()) {
        room.send(ended());
    }
}

/// Sends the spans of this process.
pub struct Exporter {
    url: String,
    resource: Value,
    spans: Receiver<Ended>,
}

/// Creates the exporter to the collector at `endpoint`; `None` if this process has one already. `service` and
/// `instance` are its resource attributes.
pub fn start(endpoint: &url::Url, service: &str, instance: &str) -> Option<Exporter> {
    let (sender, spans) = channel(QUEUE_LIMIT);
    SPANS.set(sender).ok()?;
    let url = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
    let resource = json!([text("service.name", service), text("service.instance.id", instance)]);
    Some(Exporter { url, resource, spans })
}

impl Exporter {
    /// Sends until `stop`, and then the remaining spans.
    pub async fn run(mut self, stop: Stop) {
        let mut was_away = false;
        while !stop.is_requested() {
            stop.sleep(EXPORT_INTERVAL).await;
            let mut spans = Vec::new();
            while let Ok(ended) = self.spans.try_recv() {
                spans.push(described(&ended));
            }
            if spans.is_empty() {
                continue;
            }
            let is_away = self.send(spans).await.inspect_err(|why| {
                if !was_away {
                    log::warn!(why; "spans cannot be sent: they are dropped until the collector is back");
                }
            });
            was_away = is_away.is_err();
        }
    }

    async fn send(&self, spans: Vec<Value>) -> Result<(), String> {
        let scope = json!({ "scope": { "name": env!("CARGO_PKG_NAME") }, "spans": spans });
        let resource = json!({ "resource": { "attributes": self.resource }, "scopeSpans": [scope] });
        let body = json!({ "resourceSpans": [resource] }).to_string();
        match exchange(Call::new(Method::POST, self.url.clone(), TIMEOUT).json(body)).await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(answer.status.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn described(ended: &Ended) -> Value {
    let Ended { span, kind, name, took, failed } = ended;
    // OTLP writes 64-bit numbers as text.
    json!({
        "traceId": span.trace_id(),
        "spanId": span.id(),
        "parentSpanId": span.parent.as_deref().unwrap_or_default(),
        "name": name,
        "kind": *kind as u8,
        "startTimeUnixNano": span.began.unix_timestamp_nanos().to_string(),
        "endTimeUnixNano": (span.began + *took).unix_timestamp_nanos().to_string(),
        "status": { "code": if *failed { 2 } else { 0 } },
    })
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}
