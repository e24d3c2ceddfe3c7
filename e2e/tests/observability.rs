//! The configuration of Prometheus and Grafana in deploy/ matches the programs.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use e2e::{Api, Stack};
use serde_json::Value;

/// Prometheus itself makes `up`. The others need NATS: `the_events_that_the_broker_stores_are_in_the_metrics` finds
/// them.
const EXPORTED_ELSEWHERE: [&str; 4] =
    ["up", "broker_pending", "broker_oldest_age_seconds", "broker_oldest_expires_seconds"];

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

/// `text` without every `open … close`.
fn without(text: &str, open: &str, close: char) -> String {
    let mut parts = text.split(open);
    let kept = parts.next().unwrap_or_default().to_owned();
    kept + &parts.filter_map(|part| part.split_once(close)).map(|(_, rest)| rest).collect::<String>()
}

/// The metrics in a PromQL expression: its words that are neither labels nor functions.
fn metrics_in(expression: &str) -> Vec<String> {
    let bare = without(&without(&without(expression, "by (", ')'), "{", '}'), "[", ']');
    let bare: String = bare.split_whitespace().collect();
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = bare.split_inclusive(|letter| !is_word(letter)).filter(|word| !word.ends_with('('));
    let words = words.map(|word| word.trim_end_matches(|letter| !is_word(letter)));
    words
        .filter(|word| word.starts_with(|first: char| first.is_ascii_alphabetic()))
        .map(str::to_owned)
        .collect()
}

#[test]
fn grafana_datasources_dashboards_and_mounts_are_consistent() {
    let datasources = deployed("grafana/provisioning/datasources/datasources.yml");
    let sources: Vec<_> = list(&datasources["datasources"]).iter().map(|source| &source["uid"]).collect();
    let dashboard = deployed("grafana/dashboards/system.json");
    for panel in list(&dashboard["panels"]) {
        assert!(sources.contains(&&panel["datasource"]["uid"]), "{panel}");
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
    let (dashboard, alerts) = (deployed("grafana/dashboards/system.json"), deployed("prometheus/alerts.yml"));
    let mut expressions = Vec::new();
    values_of("expr", &dashboard, &mut expressions);
    values_of("expr", &alerts, &mut expressions);
    let wanted: BTreeSet<_> = expressions.iter().flat_map(|expression| metrics_in(expression)).collect();
    assert!(wanted.contains("outbox_pending") && wanted.contains("orders_total"), "{wanted:?}");

    let mut stack = Stack::start().await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
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
        let mut exported: BTreeSet<_> = EXPORTED_ELSEWHERE.map(str::to_owned).into();
        for program in &programs {
            exported.extend(metrics_of(program).await);
        }
        let missing: Vec<_> = wanted.difference(&exported).collect();
        if missing.is_empty() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "exported by no program: {missing:?}");
    }
}

async fn metrics_of(program: &Api) -> Vec<String> {
    let text = program.text("/metrics").await;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split([' ', '{']).next()).map(str::to_owned).collect()
}
