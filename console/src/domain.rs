//! The data of the console, and what it computes from them. No I/O.

mod fleet; // services, replicas and routes
mod histogram; // how many took how long
pub mod invariants; // what must hold in a stack that has settled
mod search; // the search languages of traces and logs
pub mod standing; // invariants of a stack at work
mod telemetry; // spans and log records
mod traffic; // rates between programs, from spans

pub use fleet::{Health, Instance, Route, Service, Versions};
pub use histogram::Histogram;
pub use search::{LogCondition, LogSearch, NotUnderstood, SpanCondition, TraceSearch};
pub use telemetry::{Attributes, Kind, Level, Link, LogRecord, Span, SpanEvent};
pub use traffic::{Edge, EdgeKind, STEPS, Traffic};
