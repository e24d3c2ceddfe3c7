//! The configuration of Prometheus and Grafana in deploy/ matches the programs, and one order is one trace.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_dir;
use std::path::Path;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use e2e::{Api, Person, Stack};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde::Serialize;
use serde_json::Value;
use shared::service::{HttpConfig, Service};
use shared::testing::run;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Prometheus itself makes `up`. The others appear only under a condition. With NATS:
/// `the_events_that_the_broker_stores_are_in_the_metrics` finds them. With TLS:
/// `the_metrics_say_when_a_certificate_ends`.
const EXPORTED_ELSEWHERE: [&str; 5] = [
    "up",
    "broker_pending",
    "broker_oldest_age_seconds",
    "broker_oldest_expires_seconds",
    "tls_certificate_end_timestamp_seconds",
];
/// Prometheus adds these to each series.
const ADDED_LABELS: [&str; 2] = ["job", "instance"];

/// A YAML or JSON file of deploy/; JSON is YAML too.
fn deployed(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    serde_yaml_ng::from_str(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

/// Every value of the field `name`, at any depth.
fn values_of<'a>(name: &str, value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(field, value)| match value {
            Value::String(text) if field == name => found.push(text),
            other => values_of(name, other, found),
        }),
        Value::Array(values) => values.iter().for_each(|value| values_of(name, value, found)),
        _ => {}
    }
}

fn dashboards() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/dashboards");
    let names = read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| deployed(&format!("grafana/dashboards/{name}"))).collect()
}

/// The metrics in a PromQL expression, with the labels that select their series.
fn metrics_in(expression: &str) -> Vec<(&str, Vec<&str>)> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || "_:.".contains(letter);
    let (mut metrics, mut rest) = (Vec::new(), expression.trim_start());
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end.max(first.len_utf8()));
        rest = after.trim_start();
        match word {
            "[" => rest = rest.split_once(']').unwrap().1,
            "by" | "on" | "without" | "ignoring" => rest = rest.split_once(')').unwrap().1,
            "and" | "or" | "unless" | "bool" => {}
            // Numbers and operators.
            _ if !first.is_ascii_alphabetic() => {}
            // Functions, and aggregations with their labels in front.
            _ if ["(", "by ", "without "].iter().any(|next| rest.starts_with(next)) => {}
            metric => {
                let mut labels = Vec::new();
                if let Some(selector) = rest.strip_prefix('{') {
                    let mut is_quoted = false;
                    let end = selector.find(|letter| {
                        is_quoted ^= letter == '"';
                        letter == '}' && !is_quoted
                    });
                    let (selector, after) = selector.split_at(end.unwrap());
                    // Every second part is a value.
                    let outside = selector.split('"').step_by(2);
                    labels.extend(outside.map(|label| label.trim_matches([',', ' ', '=', '!', '~'])));
                    labels.retain(|label| !label.is_empty());
                    rest = &after[1..];
                }
                metrics.push((metric, labels));
            }
        }
        rest = rest.trim_start();
    }
    metrics
}

#[test]
fn metrics_and_their_labels_are_found_in_an_expression() {
    let expression = "histogram_quantile(0.5, sum by (le) (rate(a_bucket{x=~\"1|{2},3\", y!=\"4\"}[5m])))\n / on (z) b:c > bool 1e3 or d";
    assert_eq!(metrics_in(expression), [("a_bucket", vec!["x", "y"]), ("b:c", vec![]), ("d", vec![])]);
}

#[test]
fn grafana_datasources_dashboards_and_mounts_are_consistent() {
    let datasources = deployed("grafana/provisioning/datasources/datasources.yml");
    let sources: Vec<_> = list(&datasources["datasources"]).iter().map(|source| &source["uid"]).collect();
    let mut uids = BTreeSet::new();
    for dashboard in dashboards() {
        assert!(uids.insert(dashboard["uid"].to_string()), "{} twice", dashboard["uid"]);
        for panel in list(&dashboard["panels"]) {
            assert!(sources.contains(&&panel["datasource"]["uid"]), "{panel}");
        }
    }
    let providers = deployed("grafana/provisioning/dashboards/dashboards.yml");
    let folder = providers["providers"][0]["options"]["path"].as_str().unwrap();
    let overlay = deployed("compose.observability.yml");
    let grafana = &overlay["services"]["grafana"];
    let mounts: Vec<_> = list(&grafana["volumes"]).iter().filter_map(Value::as_str).collect();
    assert!(mounts.contains(&format!("./deploy/grafana/dashboards:{folder}:ro").as_str()), "{mounts:?}");
    let first = &grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    assert_eq!(first, &format!("{folder}/system.json"));
    for source in list(&datasources["datasources"]) {
        let host = source["url"].as_str().unwrap().split([':', '/']).nth(3).unwrap();
        let here = !overlay["services"][host].is_null();
        assert!(here || !deployed("../docker-compose.yml")["services"][host].is_null(), "{host}");
    }
}

#[actix_web::test]
async fn every_metric_in_a_dashboard_or_an_alert_is_exported_by_a_program() {
    let (dashboards, alerts) = (dashboards(), deployed("prometheus/alerts.yml"));
    let (mut expressions, mut recorded) = (Vec::new(), Vec::new());
    dashboards.iter().for_each(|dashboard| values_of("expr", dashboard, &mut expressions));
    values_of("expr", &alerts, &mut expressions);
    values_of("record", &alerts, &mut recorded);
    let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (metric, labels) in expressions.iter().flat_map(|expression| metrics_in(expression)) {
        wanted.entry(metric).or_default().extend(labels);
    }
    wanted.retain(|metric, _| !EXPORTED_ELSEWHERE.contains(metric) && !recorded.contains(metric));
    assert!(wanted.contains_key("outbox_pending") && wanted["orders_total"].contains("status"), "{wanted:?}");

    let mut stack = Stack::start().await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    ann.cancel(&order).await.expect(202);
    ann.order_reaches(&order, "refunded").await;
    let mut programs =
        vec![stack.admin_port.clone(), stack.direct("user-service"), stack.direct("card-network")];
    // The counted work may have happened in either replica.
    for service in ["order-service", "payment-service"] {
        programs.extend(stack.replicas(service).into_iter().map(|one| Api::local(one.port)));
    }
    // This makes the gateway retry, so that its retry counter exists.
    stack.kill("user-service", 1);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        ann.api.get("/api/users/me").await.expect(200);
        let mut exported: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for program in &programs {
            add_metrics_of(program, &mut exported).await;
        }
        let missing: Vec<_> =
            wanted.iter().filter_map(|(metric, labels)| missing(metric, labels, &exported)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "exported by no program: {missing:?}");
    }
}

/// What is not exported: the metric, or labels of it.
fn missing(
    metric: &str,
    labels: &BTreeSet<&str>,
    exported: &BTreeMap<String, BTreeSet<String>>,
) -> Option<String> {
    let Some(found) = exported.get(metric) else { return Some(metric.to_owned()) };
    let unknown = |label: &&&str| !ADDED_LABELS.contains(*label) && !found.contains(**label);
    let unknown: Vec<_> = labels.iter().filter(unknown).collect();
    (!unknown.is_empty()).then(|| format!("{metric}{unknown:?}"))
}

/// Adds the names of all metrics, with their labels.
async fn add_metrics_of(program: &Api, exported: &mut BTreeMap<String, BTreeSet<String>>) {
    let text = program.text("/metrics").await;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        for (metric, labels) in metrics_in(line) {
            exported.entry(metric.to_owned()).or_default().extend(labels.into_iter().map(str::to_owned));
        }
    }
}

/// A collector of spans and log lines.
struct Collector {
    url: String,
    received: UnboundedReceiver<Value>,
    /// Spans, each with the name of its program.
    spans: Vec<(String, Value)>,
    lines: Vec<(String, Value)>,
}

impl Collector {
    fn start() -> Self {
        let (sender, received) = unbounded_channel();
        let http = HttpConfig::for_tests();
        let collector = Service::bind("collector", http).unwrap().configure(move |app| {
            type Decode = fn(&[u8]) -> Value;
            let decoders: [(&str, Decode); 2] = [
                ("/v1/traces", decode::<ExportTraceServiceRequest>),
                ("/v1/logs", decode::<ExportLogsServiceRequest>),
            ];
            for (path, decode) in decoders {
                let sender = sender.clone();
                let collect = move |body: web::Bytes| {
                    sender.send(decode(&body)).unwrap();
                    async { HttpResponse::Ok().finish() }
                };
                app.service(web::resource(path).route(web::post().to(collect)));
            }
        });
        let url = run(collector.build().unwrap()).0.base;
        Self { url, received, spans: Vec::new(), lines: Vec::new() }
    }

    /// Waits for the next request of a program.
    async fn receive(&mut self) {
        let sent = tokio::time::timeout(Duration::from_secs(30), self.received.recv()).await;
        let sent = sent.expect("the programs send").expect("the collector runs");
        let groups = [("resourceSpans", "scopeSpans", "spans"), ("resourceLogs", "scopeLogs", "logRecords")];
        for (resource, scope, records) in groups {
            for group in sent[resource].as_array().into_iter().flatten() {
                let program = attribute(&group["resource"]["attributes"], "service.name");
                let records = list(&group[scope][0][records]).iter();
                let records = records.map(|record| (program.clone(), record.clone()));
                if resource == "resourceSpans" { &mut self.spans } else { &mut self.lines }.extend(records);
            }
        }
    }

    fn of_trace(&self, trace: &str) -> Vec<&(String, Value)> {
        self.spans.iter().filter(|(_, span)| span["traceId"] == trace).collect()
    }
}

/// A request to the collector, as OTLP has it in JSON.
fn decode<T: prost::Message + Default + Serialize>(body: &[u8]) -> Value {
    serde_json::to_value(T::decode(body).unwrap()).unwrap()
}

/// The value of an attribute as text; empty without one.
fn attribute(attributes: &Value, key: &str) -> String {
    let mut all = attributes.as_array().into_iter().flatten();
    let found = all.find(|one| one["key"] == key).and_then(|one| one["value"].as_object()?.values().next());
    found.map_or_else(String::new, |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

#[actix_web::test]
async fn one_order_with_a_retry_is_one_trace_over_all_programs_with_each_attempt_message_and_transaction() {
    let mut collector = Collector::start();
    let mut stack = Stack::start_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)]).await;
    let ann = stack.register().await;
    let trace = retried(&mut stack, &ann, &mut collector).await;

    let is_of = |span: &Value, kind: i64, key: &str, value: &str| {
        span["kind"] == kind && attribute(&span["attributes"], key) == value
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let (spans, ids) = loop {
        let spans = collector.of_trace(&trace);
        let count = |wanted: &dyn Fn(&str, &Value) -> bool| {
            spans.iter().filter(|(program, span)| wanted(program, span)).count()
        };
        let ids: BTreeSet<_> = spans.iter().map(|(_, span)| span["spanId"].to_string()).collect();
        let programs: BTreeSet<_> = spans.iter().map(|(program, _)| program.as_str()).collect();
        let roots = count(&|_, span| !ids.contains(&span["parentSpanId"].to_string()));
        let sent = |to: &str| count(&|_, span| is_of(span, 4, "messaging.destination.name", to));
        let handled = |by: &str| count(&|_, span| is_of(span, 5, "messaging.destination.name", by));
        let committed =
            |by: &str| count(&|at, span| at == by && is_of(span, 3, "db.transaction.outcome", "commit"));
        let to_network = count(&|_, span| is_of(span, 3, "peer.service", "card-network"));
        let steps = count(&|_, span| span["name"] == "saga step");
        let lines = collector.lines.iter().filter(|(_, line)| line["traceId"] == trace.as_str());
        let logging: BTreeSet<_> = lines.map(|(program, _)| program.as_str()).collect();
        // The transactions of ARCHITECTURE.md's table: 1, 2, 6, 7 and 11; 3, 4, 5, 8, 9 and 10.
        let complete = programs.len() >= 5
            && logging.len() >= 5
            && roots == 1
            && sent("payment-service") >= 2
            && sent("order-service") >= 2
            && handled("payment-service") >= 2
            && handled("order-service") >= 2
            && committed("order-service") >= 5
            && committed("payment-service") >= 6
            && to_network >= 2
            && steps >= 3;
        if complete {
            let spans = spans.into_iter().map(|(_, span)| span.clone());
            break (spans.collect::<Vec<_>>(), ids);
        }
        let names = || spans.iter().map(|(program, span)| format!("{program}: {}", span["name"]));
        let all = names().collect::<Vec<_>>().join("\n");
        let seen = format!("of {programs:?}, lines of {logging:?}, with {roots} roots:\n{all}");
        assert!(tokio::time::Instant::now() < deadline, "{seen}");
        collector.receive().await;
    };

    // A message is handled below its send, and linked to the span that wrote it.
    let mut handled = spans.iter().filter(|span| span["kind"] == 5);
    assert!(handled.all(|span| ids.contains(&span["links"][0]["spanId"].to_string())));
    // The log lines of requests have a request id.
    let lines = collector.lines.iter().filter(|(_, line)| line["traceId"] == trace.as_str());
    let mut requests = lines.filter(|(_, line)| attribute(&line["attributes"], "target") == "request");
    assert!(requests.all(|(_, line)| !attribute(&line["attributes"], "request_id").is_empty()));
}

/// Kills a replica of order-service, and places orders until the gateway has tried that replica for one of them.
/// Returns the trace of this order when the order is confirmed.
async fn retried(stack: &mut Stack, ann: &Person, collector: &mut Collector) -> String {
    let product = ann.product().await;
    for _ in 0..10 {
        stack.kill("order-service", 1);
        for _ in 0..3 {
            let order = ann.place(&product, 1, "tok_visa").await;
            ann.order_reaches(&order, "confirmed").await;
            let timeline = format!("/api/orders/{}/timeline", order["id"].as_str().unwrap());
            let events = ann.api.get(&timeline).await.expect(200);
            let trace = events["events"][0]["trace_id"].as_str().unwrap().to_owned();
            let is_whole = |collector: &Collector| {
                collector.of_trace(&trace).iter().any(|(at, span)| at == "gateway" && span["kind"] == 2)
            };
            while !is_whole(&*collector) {
                collector.receive().await;
            }
            let is_retry = |span: &Value| !attribute(&span["attributes"], "retry.reason").is_empty();
            let spans = collector.of_trace(&trace);
            if spans.iter().any(|(at, span)| at == "gateway" && is_retry(span)) {
                return trace;
            }
        }
        stack.restart("order-service", 1);
        stack.healthy().await;
    }
    panic!("the gateway has tried the dead replica for no order");
}
