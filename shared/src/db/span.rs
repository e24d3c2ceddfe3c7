//! The span of a transaction, within the current trace.

use std::time::Instant;

use crate::trace::{Span, SpanContext, SpanKind};

/// Begins before the transaction, because it may wait for a connection.
#[derive(Debug)]
pub(super) struct TxSpan {
    span: Span,
    statements: i64,
    is_committed: bool,
}

impl TxSpan {
    /// Without a current trace, for example in a task that polls, no trace begins.
    pub(super) fn begin(system: &'static str) -> (Self, Instant) {
        let mut span = Span::child(SpanKind::Client, "transaction");
        span.record(|span| span.set("db.system.name", system));
        (Self { span, statements: 0, is_committed: false }, Instant::now())
    }

    /// A connection was obtained, and the transaction has begun.
    pub(super) fn begun(&mut self, since: Instant) {
        self.span
            .record(|span| span.set("db.client.connection.wait_ms", since.elapsed().as_secs_f64() * 1000.0));
    }

    pub(super) fn link(&mut self, others: impl Iterator<Item = SpanContext>) {
        self.span.record(|span| others.for_each(|other| span.link(other)));
    }

    pub(super) fn count_statement(&mut self) {
        self.statements += 1;
    }

    pub(super) fn committed(mut self) {
        self.is_committed = true;
    }
}

impl Drop for TxSpan {
    fn drop(&mut self) {
        let (statements, outcome) = (self.statements, if self.is_committed { "commit" } else { "rollback" });
        self.span.record(|span| {
            span.set("db.transaction.statements", statements);
            span.set("db.transaction.outcome", outcome);
        });
    }
}
