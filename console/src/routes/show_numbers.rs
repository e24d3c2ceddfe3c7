//! `GET /api/numbers`: requests, errors and latencies over time, and what the replicas say of themselves now.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::Data;
use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::request::Params;

use super::answer;
use super::operator::Operator;
use crate::clients::gateway::Gateway;
use crate::clients::replicas::Replicas;
use crate::config::ORDERS;
use crate::domain::Histogram;
use crate::error::Error;
use crate::store::{Rollup, STEP_S, Store};
use crate::tasks::writer::now_us;
use crate::views::traces::time;

const MINUTES: std::ops::RangeInclusive<i64> = 5..=1440;
/// Points of a line, at most: neighbouring steps are added.
const POINTS: i64 = 120;

#[utoipa::path(get, path = "/api/numbers", tag = "numbers",
    params(("minutes" = Option<i64>, Query), ("service" = Option<String>, Query), ("route" = Option<String>, Query)),
    responses((status = 200), (status = 400, description = "`invalid_parameter`")))]
pub(crate) async fn show_numbers(
    _: Operator,
    params: Params,
    store: Data<Store>,
    gateway: Data<Gateway>,
    replicas: Data<Replicas>,
) -> Result<HttpResponse, Error> {
    let minutes = params.optional::<i64>("minutes", "a number")?.unwrap_or(60);
    let minutes = minutes.clamp(*MINUTES.start(), *MINUTES.end());
    let (service, route) =
        (params.optional::<String>("service", "a name")?, params.optional::<String>("route", "a route")?);
    let steps = minutes * 60 / STEP_S;
    // How many steps make a point.
    let width = (steps + POINTS - 1) / POINTS;
    // The current point has only begun, and is left out.
    let end = now_us() / 1_000_000 / STEP_S / width * width;
    let begin = end - steps / width * width;
    let mut rollups = store.rollups(begin, end).await?;
    rollups.retain(|rollup| service.as_ref().is_none_or(|service| *service == rollup.service));
    let mut series = series(&rollups, begin, end, width);
    if let Some(route) = route {
        series.retain(|one| one["route"] == route.as_str());
    }
    let (instances, outcomes, missing) = told(&gateway, &replicas).await;
    Ok(answer::json(json!({
        "from": time(begin * STEP_S * 1_000_000),
        "to": time(end * STEP_S * 1_000_000),
        "step_s": STEP_S * width,
        "missing": missing,
        "series": series,
        "instances": instances,
        "sagas": outcomes.into_iter().map(|(outcome, count)| json!({ "outcome": outcome, "count": count })).collect::<Vec<_>>(),
    })))
}

#[derive(Clone, Default)]
struct Point {
    requests: i64,
    errors: i64,
    durations: Histogram,
}

/// A line of each route, and of each service as a whole; the busiest first.
fn series(rollups: &[Rollup], begin: i64, end: i64, width: i64) -> Vec<Value> {
    let points = usize::try_from((end - begin) / width).unwrap_or_default();
    let mut lines: BTreeMap<(&str, &str), Vec<Point>> = BTreeMap::new();
    for rollup in rollups {
        let Ok(place) = usize::try_from((rollup.step - begin) / width) else { continue };
        for route in ["", rollup.route.as_str()] {
            let line =
                lines.entry((&rollup.service, route)).or_insert_with(|| vec![Point::default(); points]);
            if let Some(point) = line.get_mut(place) {
                point.requests += rollup.requests;
                point.errors += rollup.errors;
                point.durations.merge(&rollup.durations);
            }
        }
    }
    let mut lines: Vec<_> = lines.into_iter().collect();
    lines.sort_by_key(|(_, line)| std::cmp::Reverse(line.iter().map(|point| point.requests).sum::<i64>()));
    let seconds = (STEP_S * width) as f64;
    let described = lines.into_iter().map(|((service, route), line)| {
        let all = |value: fn(&Point, f64) -> Value| {
            line.iter().map(|point| value(point, seconds)).collect::<Vec<_>>()
        };
        json!({
            "service": service,
            "route": route,
            "rate": all(|point, seconds| json!(point.requests as f64 / seconds)),
            "errors": all(|point, seconds| json!(point.errors as f64 / seconds)),
            "p50_ms": all(|point, _| json!(point.durations.percentile(0.5))),
            "p90_ms": all(|point, _| json!(point.durations.percentile(0.9))),
            "p99_ms": all(|point, _| json!(point.durations.percentile(0.99))),
        })
    });
    described.collect()
}

/// The current metrics of each replica, and the outcomes of sagas by status.
async fn told(gateway: &Gateway, replicas: &Replicas) -> (Vec<Value>, BTreeMap<String, u64>, Vec<String>) {
    let Ok(services) = gateway.services().await else {
        return (Vec::new(), BTreeMap::new(), vec!["gateway".to_owned()]);
    };
    let all = services.iter().flat_map(|service| service.instances.iter().map(move |one| (service, one)));
    let read = all.map(async |(service, instance)| {
        (service, instance, replicas.metrics(&service.name, &instance.url).await)
    });
    let (mut instances, mut outcomes, mut missing) = (Vec::new(), BTreeMap::new(), Vec::new());
    for (service, instance, metrics) in join_all(read).await {
        let Some(metrics) = metrics else {
            missing.push(instance.id.clone());
            continue;
        };
        instances.push(json!({
            "service": service.name,
            "instance": instance.id,
            "in_flight": instance.active_requests,
            "pool_used": sum(&metrics, "db_client_connection_count", "db_client_connection_state=\"used\""),
            "pool_max": sum(&metrics, "db_client_connection_max", ""),
            "outbox": sum(&metrics, "outbox_pending", ""),
        }));
        if service.name == ORDERS {
            for line in metrics.lines().filter(|line| line.starts_with("orders_total{")) {
                if let (Some(status), Some(count)) = (label(line, "status"), value(line)) {
                    *outcomes.entry(status.to_owned()).or_default() += count as u64;
                }
            }
        }
    }
    (instances, outcomes, missing)
}

/// The sum of a metric's values, of the lines with `label`; `None` without one.
fn sum(metrics: &str, name: &str, label: &str) -> Option<f64> {
    let is_it = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
    };
    metrics.lines().filter(is_it).filter_map(value).reduce(|sum, value| sum + value)
}

fn value(line: &str) -> Option<f64> {
    line.rsplit_once(' ')?.1.parse().ok()
}

fn label<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_once(&format!("{name}=\""))?.1.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_become_points_of_the_same_width() {
        let rollup = |step, route: &str, requests| {
            let mut durations = Histogram::default();
            (0..requests).for_each(|_| durations.add(10_000));
            let (service, route) = ("a-service".to_owned(), route.to_owned());
            Rollup { step, service, route, requests, errors: 1, durations }
        };
        let series =
            series(&[rollup(100, "/a", 30), rollup(101, "/a", 30), rollup(103, "/b", 6)], 100, 104, 2);
        assert_eq!((&series[0]["route"], &series[0]["rate"]), (&json!(""), &json!([1.0, 0.1])));
        assert_eq!((&series[1]["route"], &series[1]["rate"]), (&json!("/a"), &json!([1.0, 0.0])));
        assert_eq!(series[1]["p50_ms"][1], Value::Null, "no request");
        assert_eq!(series[2]["errors"], json!([0.0, 1.0 / 60.0]));
    }

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let text = "# HELP a x\na{s=\"used\",n=\"r\"} 2\na{s=\"used\",n=\"w\"} 1\na{s=\"idle\",n=\"w\"} 9\na_b 7\nb 4\n";
        assert_eq!(sum(text, "a", "s=\"used\""), Some(3.0));
        assert_eq!((sum(text, "b", ""), sum(text, "c", "")), (Some(4.0), None));
        assert_eq!(label("orders_total{reason=\"\",status=\"confirmed\"} 3", "status"), Some("confirmed"));
    }
}
