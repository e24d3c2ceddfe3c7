//! Numbers about this process, in Prometheus text at `/metrics`, named as OpenTelemetry names them.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{Encoder as _, HistogramOpts, HistogramVec, IntGauge, TextEncoder};

/// Boundaries in seconds, from OpenTelemetry's advice for HTTP durations.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

static REQUESTS: LazyLock<Option<HistogramVec>> = LazyLock::new(|| {
    let options = HistogramOpts::new(
        "http_server_request_duration_seconds",
        "Time from the head of a request to the head of its answer.",
    );
    let labels = ["http_request_method", "http_route", "http_response_status_code"];
    let requests = HistogramVec::new(options.buckets(SECONDS.to_vec()), &labels).ok()?;
    prometheus::register(Box::new(requests.clone())).ok()?;
    Some(requests)
});

/// Counts one answered request; `route` is the pattern, never a concrete path.
pub fn request(method: &str, route: &str, status: u16, took: Duration) {
    if let Some(requests) = &*REQUESTS {
        requests.with_label_values(&[method, route, &status.to_string()]).observe(took.as_secs_f64());
    }
}

static OUTBOX: LazyLock<Option<(IntGauge, IntGauge)>> = LazyLock::new(|| {
    let pending = IntGauge::new("outbox_pending", "Events that wait to be sent.").ok()?;
    let age = IntGauge::new("outbox_oldest_age_seconds", "How long the oldest of them has waited.").ok()?;
    prometheus::register(Box::new(pending.clone())).ok()?;
    prometheus::register(Box::new(age.clone())).ok()?;
    Some((pending, age))
});

/// Tells how many events wait to be sent, and for how long the oldest has.
pub fn outbox(pending: i64, oldest_age_s: i64) {
    if let Some((gauge, age)) = &*OUTBOX {
        gauge.set(pending);
        age.set(oldest_age_s);
    }
}

/// Everything that was counted, as Prometheus text.
pub fn text() -> Vec<u8> {
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&prometheus::gather(), &mut text) {
        log::error!(error:%; "the metrics cannot be written");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_the_process_tells_its_size() {
        request("GET", "/api/things/{id}", 200, Duration::from_millis(3));
        let text = String::from_utf8(text()).unwrap();
        assert!(text.contains(r#"http_route="/api/things/{id}""#), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}
