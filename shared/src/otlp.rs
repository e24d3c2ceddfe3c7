//! Exports spans and log lines every second: OTLP over HTTP, as protobuf, to the collector at
//! `OTEL_EXPORTER_OTLP_ENDPOINT`.
//!
//! ```text
//! span ends ──► SpanProcessor ──► queue ──► Sender ──► POST /v1/traces
//! log line ─────────────────────► queue ──► Sender ──► POST /v1/logs
//! ```
//!
//! A record is written as protobuf where it ends, so the queues contain bytes. Nothing waits for the collector. What
//! does not fit into a queue, or cannot be delivered, is dropped and counted.

mod logs; // log lines
mod protobuf; // writes protobuf without intermediate values
mod queue; // bounded; drops are counted
mod sender; // posts what waits, on the main thread
mod spans; // the SDK's SpanProcessor

pub(crate) use logs::record as export_log;

use std::pin::pin;
use std::time::Duration;

use futures_util::future::select;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;

use self::sender::Sender;
use crate::config::Vars;
use crate::stop::Stop;
use crate::trace;

const EXPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The time after the program's end for what is still in the queues.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// Where to export to.
#[derive(Debug, Clone)]
pub struct OtlpConfig {
    /// Base URL of the collector.
    pub endpoint: url::Url,
    /// The part of the traces that begin in this program and are sampled: from 0 to 1.
    pub ratio: f64,
    /// Log lines are exported, too.
    pub logs: bool,
}

impl OtlpConfig {
    /// Reads `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER_ARG` and `OTEL_LOGS_EXPORTER`.
    pub fn from_vars(vars: &mut Vars) -> Option<Self> {
        let endpoint = vars
            .optional("OTEL_EXPORTER_OTLP_ENDPOINT", "collector of traces and logs: OTLP, HTTP, protobuf");
        let ratio: f64 =
            vars.or("OTEL_TRACES_SAMPLER_ARG", "1", "part of new traces that is sampled: 0 to 1");
        if !(0.0..=1.0).contains(&ratio) {
            vars.reject("OTEL_TRACES_SAMPLER_ARG is not usable: write a number from 0 to 1");
        }
        let logs: String = vars.or("OTEL_LOGS_EXPORTER", "otlp", "otlp exports log lines, none does not");
        if !["otlp", "none"].contains(&logs.as_str()) {
            vars.reject("OTEL_LOGS_EXPORTER is not usable: write otlp or none");
        }
        Some(Self { endpoint: endpoint?, ratio, logs: logs == "otlp" })
    }
}

/// The exporter of this process. Its task is [`Exporter::run`].
pub struct Exporter {
    spans: Sender,
    logs: Sender,
}

/// Begins to record, as the replica `instance` of `service`. `None` if this process has an exporter already.
pub(crate) fn start(config: &OtlpConfig, service: &'static str, instance: &str) -> Option<Exporter> {
    let resource = Resource::builder_empty()
        .with_service_name(service)
        .with_attributes([
            KeyValue::new("service.instance.id", instance.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .build();
    let (processor, spans) = spans::processor();
    let builder = SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource.clone());
    if !trace::install(builder, config.ratio) {
        return None;
    }
    let logs = if config.logs { logs::start()? } else { queue::queue("logs").1 };
    let sender = |waiting, scope| Sender::new(waiting, &config.endpoint, &resource, scope);
    Some(Exporter { spans: sender(spans, env!("CARGO_PKG_NAME")), logs: sender(logs, "log") })
}

impl Exporter {
    /// Exports until `stop`, and then the rest, for at most 5 s: no program waits for its collector.
    pub async fn run(self, stop: Stop) {
        let Self { mut spans, mut logs } = self;
        let stopping = stop.clone();
        let exporting = async move {
            loop {
                let is_last = stop.is_requested();
                if !is_last {
                    tokio::select! {
                        () = stop.sleep(EXPORT_INTERVAL) => {}
                        () = spans.batch() => {}
                        () = logs.batch() => {}
                    }
                }
                spans.send().await;
                logs.send().await;
                if is_last {
                    return;
                }
            }
        };
        let over = async {
            stopping.requested().await;
            actix_web::rt::time::sleep(LAST_EXPORT).await;
        };
        select(pin!(exporting), pin!(over)).await;
    }
}
