//! Posts what waits to the collector. The HTTP client belongs to one thread, so this runs on the main one.

use std::time::Duration;

use actix_web::http::Method;
use opentelemetry_sdk::Resource;

use super::protobuf;
use super::queue::{Records, Waiting, dropped};
use crate::http::{Call, exchange};

const TIMEOUT: Duration = Duration::from_secs(3);

/// Sends the records of one signal.
pub(super) struct Sender {
    waiting: Waiting,
    url: String,
    /// The head of each request: `Resource`, and `InstrumentationScope`.
    resource: Vec<u8>,
    scope: Vec<u8>,
    /// A buffer that is used again, so that each request does not allocate its memory.
    sent: Records,
    /// The collector refuses, or is not there. That is logged once.
    is_failing: bool,
}

impl Sender {
    pub(super) fn new(waiting: Waiting, endpoint: &url::Url, resource: &Resource, scope: &str) -> Self {
        let url = format!("{}/v1/{}", endpoint.as_str().trim_end_matches('/'), waiting.signal());
        let (mut attributes, mut name) = (Vec::new(), Vec::new());
        for (key, value) in resource.iter() {
            protobuf::sdk_attribute(&mut attributes, 1, key.as_str(), value);
        }
        protobuf::text(&mut name, 1, scope);
        let sent = Records::default();
        Self { waiting, url, resource: attributes, scope: name, sent, is_failing: false }
    }

    /// Waits until there are enough records for a request.
    pub(super) async fn batch(&self) {
        self.waiting.batch().await;
    }

    /// Sends what waits. What the collector does not take in time is dropped.
    pub(super) async fn send(&mut self) {
        self.sent = self.waiting.take(std::mem::take(&mut self.sent));
        if self.sent.count == 0 {
            return;
        }
        let body = body(&self.resource, &self.scope, &self.sent.bytes);
        let call = Call::new(Method::POST, self.url.clone(), TIMEOUT).body("application/x-protobuf", body);
        let error = match exchange(call).await {
            Ok(answer) if answer.status.is_success() => {
                self.is_failing = false;
                return;
            }
            Ok(answer) => answer.status.to_string(),
            Err(error) => error.to_string(),
        };
        let signal = self.waiting.signal();
        dropped(signal, "not_delivered", self.sent.count);
        if !std::mem::replace(&mut self.is_failing, true) {
            log::warn!(signal, error; "telemetry is dropped until the collector accepts it");
        }
    }
}

/// `ExportTraceServiceRequest` or `ExportLogsServiceRequest`: the numbers of their fields are the same.
fn body(resource: &[u8], scope: &[u8], records: &[u8]) -> Vec<u8> {
    let (mut group, mut scoped) = (Vec::new(), Vec::new());
    protobuf::bytes(&mut scoped, 1, scope);
    protobuf::bytes(&mut group, 1, resource);
    protobuf::head(&mut group, 2, scoped.len() + records.len());
    let length = group.len() + scoped.len() + records.len();
    let mut out = Vec::with_capacity(length + 16);
    protobuf::head(&mut out, 1, length);
    [&group, &scoped, records].iter().for_each(|part| out.extend_from_slice(part));
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::otlp::queue::Queue;

    /// The body of a request with all records of `queue`.
    pub(in crate::otlp) fn body_of(pair: (Queue, Waiting), write: impl Fn(&Queue)) -> Vec<u8> {
        write(&pair.0);
        let resource = Resource::builder_empty().with_service_name("a-service").build();
        let mut sender = Sender::new(pair.1, &"http://collector".parse().unwrap(), &resource, "a scope");
        sender.sent = sender.waiting.take(Records::default());
        body(&sender.resource, &sender.scope, &sender.sent.bytes)
    }
}
