//! Metrics of this process, in Prometheus text at `/metrics`, with OpenTelemetry's names.
//!
//! Counters and histograms change when something happens. Gauges are collected at scrape time ([`Readings`]),
//! so that there are no stale series. The values of a label come from a short list or from this program, never
//! from a client: each new one would be kept for ever.

mod process; // processor time, memory and files of this process

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
    register_histogram_vec, register_int_counter_vec,
};

use crate::resilience::retry::Failure;
use crate::trace::{OTHER_METHOD, known_method};

/// A failed registration is a mistake in the program: two metrics of one name.
const REGISTERED: &str = "the name of a metric is registered once";

/// Boundaries in seconds, from OpenTelemetry's advice for HTTP durations.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

static REQUESTS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Time from the head of a request to the head of its answer.";
    let labels = ["http_request_method", "http_route", "http_response_status_code"];
    let name = "http_server_request_duration_seconds";
    register_histogram_vec!(name, help, &labels, SECONDS.to_vec()).expect(REGISTERED)
});

/// A time series of [`REQUESTS`].
struct Series {
    method: &'static str,
    route: String,
    status: u16,
    histogram: Histogram,
}

thread_local! {
    /// The series that this thread has counted. A search by labels in the registry takes longer.
    static KNOWN: RefCell<Vec<Series>> = const { RefCell::new(Vec::new()) };
}

/// Counts one answered request; `route` is the pattern, never a concrete path.
pub fn request(method: &str, route: &str, status: u16, took: Duration) {
    let method = known_method(method).unwrap_or(OTHER_METHOD);
    let is_it = |series: &Series| series.status == status && series.method == method && series.route == route;
    KNOWN.with_borrow_mut(|known| {
        let place = known.iter().position(is_it).unwrap_or_else(|| {
            let histogram = REQUESTS.with_label_values(&[method, route, &status.to_string()]);
            known.push(Series { method, route: route.to_owned(), status, histogram });
            known.len() - 1
        });
        known[place].histogram.observe(took.as_secs_f64());
        // What is counted often moves to the front.
        known.swap(place, place / 2);
    });
}

static RETRIES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Requests that were sent once more, by why.";
    let labels = ["peer_service", "error_type"];
    register_int_counter_vec!("http_client_retries_total", help, &labels).expect(REGISTERED)
});

/// Counts one more attempt at a request to `service`, after `failure`.
pub fn retry(service: &str, failure: Failure) {
    RETRIES.with_label_values(&[service, &failure.to_string()]).inc();
}

static REFUSED_CONNECTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Connections that were closed at once, by the limit that was reached.";
    register_int_counter_vec!("http_server_refused_connections_total", help, &["limit"]).expect(REGISTERED)
});

/// Counts a connection that was not served, or was ended. `limit`: `all`, `client`, `tls` if the handshake failed,
/// `misuse` of HTTP/2, or `error` if accepting failed.
pub fn refused_connection(limit: &str) {
    REFUSED_CONNECTIONS.with_label_values(&[limit]).inc();
}

static LOCAL_FAILURES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Connections that could not be made for want of descriptors, ports or an address of the name.";
    register_int_counter_vec!("http_client_local_failures_total", help, &["peer_service"]).expect(REGISTERED)
});

/// Counts and logs a connection to `service` that could not be made, and not because of the peer.
pub fn local_failure(service: &str, why: &str) {
    log::warn!(peer_service = service, error = why; "no connection can be made here");
    LOCAL_FAILURES.with_label_values(&[service]).inc();
}

/// The gauges, which are read at each scrape.
#[derive(Default)]
pub struct Readings {
    registry: Registry,
    gauges: BTreeMap<&'static str, GaugeVec>,
}

impl Readings {
    /// Adds one value of the gauge `name`, which has the same labels each time.
    pub fn gauge(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        if let Err(error) = self.set(name, help, labels, value) {
            log::error!(error:%, metric = name; "a gauge cannot be exported");
        }
    }

    fn set(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[(&str, &str)],
        value: f64,
    ) -> Result<(), prometheus::Error> {
        let (names, values): (Vec<_>, Vec<_>) = labels.iter().copied().unzip();
        if !self.gauges.contains_key(name) {
            let gauge = GaugeVec::new(Opts::new(name, help), &names)?;
            self.registry.register(Box::new(gauge.clone()))?;
            self.gauges.insert(name, gauge);
        }
        self.gauges[name].get_metric_with_label_values(&values).map(|gauge| gauge.set(value))
    }
}

/// All metrics as Prometheus text.
pub fn text(readings: &Readings) -> Vec<u8> {
    let (mut text, mut all) = (Vec::new(), prometheus::gather());
    all.extend(readings.registry.gather());
    if let Err(error) = TextEncoder::new().encode(&all, &mut text) {
        log::error!(error:%; "the metrics cannot be written");
    }
    text.extend_from_slice(process::text().as_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_the_process_tells_its_size() {
        request("GET", "/api/things/{id}", 200, Duration::from_millis(3));
        let text = told(&Readings::default());
        assert!(text.contains(r#"http_route="/api/things/{id}""#), "{text}");
        for name in ["process_resident_memory_bytes ", "process_cpu_seconds_total "] {
            assert!(text.contains(name), "{name}: {text}");
        }
    }

    #[test]
    fn a_client_that_makes_up_methods_makes_no_new_labels() {
        request("BREW", "/api/pots", 405, Duration::from_millis(3));
        let text = told(&Readings::default());
        assert!(!text.contains("BREW") && text.contains(r#"http_request_method="_OTHER""#), "{text}");
    }

    #[test]
    fn a_retry_is_counted_by_whom_it_asks_and_why() {
        retry("a-service", Failure::Unreachable);
        retry("a-service", Failure::Answered(actix_web::http::StatusCode::BAD_GATEWAY));
        let text = told(&Readings::default());
        for why in ["unreachable", "502"] {
            let line =
                format!(r#"http_client_retries_total{{error_type="{why}",peer_service="a-service"}} 1"#);
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn gauges_are_collected_at_scrape_time() {
        let mut readings = Readings::default();
        for (state, value) in [("idle", 3.0), ("used", 1.0)] {
            readings.gauge("things", "Things.", &[("state", state)], value);
        }
        let text = told(&readings);
        assert!(text.contains("things{state=\"idle\"} 3\nthings{state=\"used\"} 1\n"), "{text}");
        assert!(!told(&Readings::default()).contains("things{"), "and not of what was");
    }

    fn told(readings: &Readings) -> String {
        String::from_utf8(text(readings)).unwrap()
    }
}
