//! Distributed tracing over HTTP and messages (W3C Trace Context).
//!
//! Each served request and each handled message is a [`Span`]. Finished spans are exported to the collector
//! at `OTEL_EXPORTER_OTLP_ENDPOINT`, if there is one.

mod export; // sends spans to a collector

pub use export::{Exporter, start};

use std::time::Duration;

use time::OffsetDateTime;

/// One operation in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The `traceparent` header for child spans.
    text: String,
    /// The id of the parent.
    parent: Option<String>,
    began: OffsetDateTime,
}

/// Span kind, with OTLP's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A served request.
    Server = 2,
    /// A handled message.
    Consumer = 5,
}

impl Span {
    /// Begins a span. Its parent is the span in `traceparent`; without a valid one it begins a new trace.
    pub fn below(traceparent: Option<&str>) -> Self {
        // An id of zero means that there is none.
        let id = rand::random::<u64>().max(1);
        let began = OffsetDateTime::now_utc();
        match traceparent.and_then(parsed) {
            Some((trace, parent, flags)) => {
                let text = format!("00-{trace}-{id:016x}-{flags}");
                Self { text, parent: Some(parent.to_owned()), began }
            }
            None => {
                let text = format!("00-{:032x}-{id:016x}-01", rand::random::<u128>().max(1));
                Self { text, parent: None, began }
            }
        }
    }

    pub fn trace_id(&self) -> &str {
        &self.text[3..35]
    }

    fn id(&self) -> &str {
        &self.text[36..52]
    }

    /// The `traceparent` header for child spans.
    pub fn traceparent(&self) -> &str {
        &self.text
    }

    /// Ends the span and exports it if its trace is sampled.
    pub fn end(&self, kind: Kind, name: impl FnOnce() -> String, took: Duration, failed: bool) {
        let is_sampled = u8::from_str_radix(&self.text[53..], 16).is_ok_and(|flags| flags & 1 == 1);
        if is_sampled {
            export::record(|| export::Ended { span: self.clone(), kind, name: name(), took, failed });
        }
    }
}

/// The trace id in `traceparent`; `None` if it is malformed.
pub fn trace_id(traceparent: &str) -> Option<&str> {
    parsed(traceparent).map(|(trace, ..)| trace)
}

/// Parses `version-trace-span-flags` (W3C Trace Context §3.2) into trace, span and flags.
fn parsed(traceparent: &str) -> Option<(&str, &str, &str)> {
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, length| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    let mut parts = traceparent.split('-');
    let [version, trace, span, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let is_whole = is_hex(version, 2) && version != "ff" && is_id(trace, 32) && is_id(span, 16);
    (is_whole && is_hex(flags, 2)).then_some((trace, span, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn a_span_stays_in_its_parents_trace_with_an_id_of_its_own() {
        let span = Span::below(Some(PARENT));
        assert_eq!(span.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(span.parent.as_deref(), Some("b7ad6b7169203331"));
        let below = Span::below(Some(span.traceparent()));
        assert_eq!((below.trace_id(), below.parent.as_deref()), (span.trace_id(), Some(span.id())));
        assert!(span.traceparent().ends_with("-00"), "whether it is kept was decided before");
    }

    #[test]
    fn a_malformed_parent_begins_a_new_trace() {
        for bad in [
            "",
            "a-b",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            let span = Span::below(Some(bad));
            assert_eq!(span.parent, None, "{bad}");
            assert!(parsed(span.traceparent()).is_some(), "{bad}");
        }
    }
}
