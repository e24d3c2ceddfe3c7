//! The envelope of a message: CloudEvents 1.0 as structured JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::client::Context;
use crate::trace::{self, SpanContext};

/// An event or a command to another service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    specversion: SpecVersion,
    /// The inbox detects repeated deliveries by it.
    pub id: Uuid,
    /// Name of the sending service.
    pub source: String,
    /// Type and version of the data: `thing.done.v1`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Id of the aggregate. Events of one subject stay in order.
    pub subject: String,
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// W3C trace context (CloudEvents' distributed tracing extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The same: what other tracing systems add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
    /// The request that caused the event, for log lines. An extension of our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) requestid: Option<String>,
    #[serde(default = "json")]
    datacontenttype: String,
    #[serde(default)]
    pub data: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum SpecVersion {
    #[serde(rename = "1.0")]
    V1,
}

fn json() -> String {
    "application/json".to_owned()
}

impl Event {
    pub fn new(source: &str, kind: &str, subject: impl ToString, data: impl Serialize) -> Self {
        Self {
            specversion: SpecVersion::V1,
            id: Uuid::now_v7(),
            source: source.to_owned(),
            kind: kind.to_owned(),
            subject: subject.to_string(),
            time: crate::db::now(),
            traceparent: None,
            tracestate: None,
            requestid: None,
            datacontenttype: json(),
            data: serde_json::to_value(data).unwrap_or_default(),
        }
    }

    /// Makes the event part of the trace and the request of `context`.
    pub fn within(mut self, context: &Context) -> Self {
        self.traceparent = context.traceparent();
        self.tracestate = context.tracestate();
        self.requestid = context.request_id().map(str::to_owned);
        self
    }

    /// The request and the trace of the event, for calls made while handling it.
    pub fn context(&self) -> Context {
        Context::of_message(self.requestid.clone(), self.span())
    }

    /// The span in which the event was written.
    pub(super) fn span(&self) -> Option<SpanContext> {
        self.traceparent.as_deref().and_then(|parent| trace::parse(parent, self.tracestate.as_deref()))
    }

    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_a_cloud_event() {
        let trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
        let event = Event::new("a-service", "thing.done.v1", "7", json!({ "size": 1 }));
        let event = event.within(&Context::in_trace(trace.clone()));
        let json = event.to_json();
        for (attribute, value) in [
            ("specversion", "1.0"),
            ("source", "a-service"),
            ("type", "thing.done.v1"),
            ("subject", "7"),
            ("datacontenttype", "application/json"),
        ] {
            assert_eq!(json[attribute], value);
        }
        let read: Event = serde_json::from_value(json).unwrap();
        assert_eq!(read, event);
        assert_eq!(read.traceparent, trace);
    }

    #[test]
    fn a_malformed_event_is_refused_and_unknown_extensions_are_ignored() {
        let good = Event::new("a", "b", "c", ()).to_json();
        let with = |name: &str, value: Value| {
            let mut event = good.clone();
            event[name] = value;
            serde_json::from_value::<Event>(event)
        };
        assert!(with("partitionkey", json!("x")).is_ok());
        assert!(with("specversion", json!("0.3")).is_err());
        assert!(with("id", json!("not a uuid")).is_err());
        assert!(with("time", json!("yesterday")).is_err());
    }
}
