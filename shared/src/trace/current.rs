//! The context of the running request, message or background job, for whatever is done within it.

use actix_web::http::header::HeaderValue;
use opentelemetry::trace::SpanContext;
use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static CURRENT: Current;
}

/// A request, message or background job. Log lines take its ids from here, and child spans their parent.
#[derive(Debug, Clone)]
pub struct Current {
    request_id: Option<HeaderValue>,
    span: SpanContext,
}

impl Current {
    pub fn new(request_id: Option<HeaderValue>, span: SpanContext) -> Self {
        Self { request_id, span }
    }

    /// Below `span`, with the request id of the current context.
    pub fn below(span: SpanContext) -> Self {
        Self { request_id: Self::with(|current| current.request_id.clone()).flatten(), span }
    }

    /// Runs `future` within this context. Tasks that it spawns are not within.
    pub fn scope<F: Future>(self, future: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self, future)
    }

    /// The same, for a function.
    pub fn sync_scope<T>(self, run: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, run)
    }

    /// `None` outside of a request, message or job.
    pub fn with<T>(read: impl FnOnce(&Self) -> T) -> Option<T> {
        CURRENT.try_with(read).ok()
    }

    /// The ids of the current span.
    pub fn span() -> Option<SpanContext> {
        Self::with(|current| current.span.clone()).filter(SpanContext::is_valid)
    }

    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_ref().and_then(|id| id.to_str().ok())
    }

    pub fn context(&self) -> &SpanContext {
        &self.span
    }
}
