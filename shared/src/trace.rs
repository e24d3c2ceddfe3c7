//! Distributed tracing with the OpenTelemetry SDK (ADR 20): spans, and the context that they travel in.
//!
//! ```text
//! request, message or job ─► Span ─► Current::scope(…) ─► child spans, log lines, calls and events of the scope
//!                              └─ ends: to the exporter (crate::otlp), if its trace is sampled
//! ```
//!
//! The first program of a trace decides whether the trace is sampled; all others do the same. In a trace that is not
//! sampled, a [`Span`] is only a copy of its parent's ids: it makes no new ids and allocates nothing. Names of spans
//! and attributes are OpenTelemetry's where it has any; docs/telemetry.md lists them.

mod current; // the task-local context of the running request, message or job
mod w3c; // traceparent and tracestate

pub use current::Current;
pub use opentelemetry::trace::{SpanContext, SpanKind};
pub use w3c::{Traceparent, from_headers, parse};

use std::borrow::Cow;
use std::sync::OnceLock;

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan};

/// Most spans have no more attributes; their list grows only once.
const ATTRIBUTES: usize = 8;

/// Stands for all methods that HTTP does not define.
pub(crate) const OTHER_METHOD: &str = "_OTHER";

/// The tracer of this process; without an exporter there is none.
static TRACER: OnceLock<Tracing> = OnceLock::new();

struct Tracing {
    tracer: SdkTracer,
    /// The part of new traces that is sampled.
    ratio: f64,
}

impl Tracing {
    /// Whether a new trace is sampled.
    fn is_chosen(&self) -> bool {
        self.ratio > 0.0 && (self.ratio >= 1.0 || rand::random::<f64>() < self.ratio)
    }

    fn start(&self, kind: SpanKind, name: &'static str, above: &Context) -> Span {
        let builder = SpanBuilder {
            span_kind: Some(kind),
            name: name.into(),
            attributes: Some(Vec::with_capacity(ATTRIBUTES)),
            ..SpanBuilder::default()
        };
        let span = Box::new(self.tracer.build_with_context(builder, above));
        Span { context: span.span_context().clone(), recording: Some(span) }
    }
}

/// Samples `ratio` of the traces that begin here, and hands spans to `provider`'s processors. `false` if this process
/// has a tracer already.
pub(crate) fn install(builder: opentelemetry_sdk::trace::TracerProviderBuilder, ratio: f64) -> bool {
    use opentelemetry::trace::TracerProvider as _;
    // A span that is not sampled is not even begun: see [`Span::below`].
    let provider: SdkTracerProvider = builder.with_sampler(Sampler::AlwaysOn).build();
    TRACER.set(Tracing { tracer: provider.tracer(env!("CARGO_PKG_NAME")), ratio }).is_ok()
}

/// One operation in a trace. It ends when it is dropped.
#[derive(Debug)]
pub struct Span {
    context: SpanContext,
    /// `None` if the trace is not sampled, or if this process exports nothing.
    recording: Option<Box<SdkSpan>>,
}

impl Span {
    /// Begins a span below `parent`. Without a valid parent it begins a new trace.
    pub fn below(parent: Option<&SpanContext>, kind: SpanKind, name: &'static str) -> Self {
        match (TRACER.get(), parent) {
            (Some(tracing), None) if tracing.is_chosen() => tracing.start(kind, name, &Context::new()),
            (Some(tracing), Some(parent)) if parent.is_sampled() => {
                tracing.start(kind, name, &Context::new().with_remote_span_context(parent.clone()))
            }
            (_, Some(parent)) => Self { context: parent.clone(), recording: None },
            (_, None) => Self { context: unsampled(), recording: None },
        }
    }

    /// A span below the current one; without a current one, no trace begins.
    pub fn child(kind: SpanKind, name: &'static str) -> Self {
        match Current::span() {
            Some(parent) => Self::below(Some(&parent), kind, name),
            None => Self { context: SpanContext::NONE, recording: None },
        }
    }

    /// A span that is never recorded.
    pub fn unrecorded(parent: Option<SpanContext>) -> Self {
        Self { context: parent.unwrap_or_else(unsampled), recording: None }
    }

    /// The ids, for child spans.
    pub fn context(&self) -> &SpanContext {
        &self.context
    }

    pub fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// Runs `describe` if the span is recorded: it sets attributes.
    pub fn record(&mut self, describe: impl FnOnce(&mut Recording<'_>)) {
        if let Some(span) = &mut self.recording {
            describe(&mut Recording(span));
        }
    }
}

/// A span that is recorded.
#[derive(Debug)]
pub struct Recording<'a>(&'a mut SdkSpan);

impl Recording<'_> {
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    pub fn name(&mut self, name: impl Into<Cow<'static, str>>) {
        self.0.update_name(name);
    }

    /// Sets the method of a request, and names the span after it and the route. A client cannot make up names.
    pub fn request(&mut self, method: &str, route: Option<&str>) {
        let known = known_method(method);
        let named = known.unwrap_or("HTTP");
        match route {
            Some(route) => self.name([named, " ", route].concat()),
            None => self.name(named),
        }
        self.set("http.request.method", known.unwrap_or(OTHER_METHOD));
        if known.is_none() {
            self.set("http.request.method_original", method.to_owned());
        }
    }

    /// Links the span to another one that is a cause of it, and not its parent.
    pub fn link(&mut self, other: SpanContext) {
        self.0.add_link(other, Vec::new());
    }

    /// The operation failed. `kind` is a status code, or the name of the error.
    pub fn fail(&mut self, kind: impl Into<Value>) {
        self.set("error.type", kind);
        self.0.set_status(Status::error(""));
    }
}

/// The context of a request from outside: it stays in the client's trace, but whether that is sampled is decided here.
/// Not by the trace's id, which the client has chosen.
pub fn resampled(outside: &SpanContext) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(TRACER.get().is_some_and(Tracing::is_chosen));
    SpanContext::new(outside.trace_id(), outside.span_id(), flags, true, outside.trace_state().clone())
}

/// A method that HTTP defines.
pub(crate) fn known_method(method: &str) -> Option<&'static str> {
    const METHODS: [&str; 9] =
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    METHODS.into_iter().find(|known| *known == method)
}

/// The id of a trace as text; `None` outside of a trace.
pub fn trace_id(span: &SpanContext) -> Option<String> {
    span.is_valid().then(|| Traceparent::of(span).as_str()[3..35].to_owned())
}

/// A new trace that is not sampled.
fn unsampled() -> SpanContext {
    // An id of zero means that there is none.
    let (trace, span) = (rand::random::<u128>().max(1), rand::random::<u64>().max(1));
    let (trace, span) = (TraceId::from(trace), SpanId::from(span));
    SpanContext::new(trace, span, TraceFlags::NOT_SAMPLED, false, TraceState::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn in_a_trace_that_is_not_sampled_a_span_is_a_copy_of_its_parents_ids() {
        let parent = parse(PARENT, None).unwrap();
        let span = Span::below(Some(&parent), SpanKind::Server, "a span");
        assert_eq!(Traceparent::of(span.context()).as_str(), PARENT);
        assert!(!span.is_recording());
    }

    #[test]
    fn a_span_without_a_parent_begins_a_trace() {
        let [one, two] = [(); 2].map(|()| Span::below(None, SpanKind::Server, "a span"));
        assert!(one.context().is_valid());
        assert_ne!(one.context().trace_id(), two.context().trace_id());
    }

    #[test]
    fn without_a_current_span_a_child_belongs_to_no_trace() {
        assert!(!Span::child(SpanKind::Client, "a span").context().is_valid());
    }

    #[test]
    fn a_client_outside_cannot_demand_that_its_trace_is_sampled() {
        let wished = parse(&PARENT.replace("331-00", "331-01"), None).unwrap();
        assert!(wished.is_sampled());
        let decided = resampled(&wished);
        assert_eq!(decided.trace_id(), wished.trace_id());
        assert!(!decided.is_sampled(), "this process samples nothing");
    }
}
