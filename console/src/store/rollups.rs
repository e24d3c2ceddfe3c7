//! Served requests by service and route, in steps of 30 s. They stay when the spans are deleted for their size, as long as
//! they are a small part of it.

use std::collections::BTreeMap;

use shared::db::{DbError, Row, Tx, query};

use super::Store;
use crate::domain::{Histogram, Kind, Span};

/// Seconds of a step.
pub const STEP_S: i64 = 30;

/// One step of one route.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollup {
    /// Since 1970.
    pub step: i64,
    pub service: String,
    pub route: String,
    pub requests: i64,
    pub errors: i64,
    pub durations: Histogram,
}

/// Most rows of a step. A program that has ids in its routes, or a sender that makes up names, would fill the disk with a
/// day of them. Everything in this workspace together has fewer routes.
const MOST: usize = 200;
/// The service and the route of the requests that have no row of their own.
const OTHER: &str = "other";

impl Rollup {
    fn empty(step: i64, service: &str, route: &str) -> Self {
        Self {
            step,
            service: service.to_owned(),
            route: route.to_owned(),
            requests: 0,
            errors: 0,
            durations: Histogram::default(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.durations.merge(&other.durations);
    }
}

pub(super) async fn add(tx: &mut Tx, spans: &[&Span]) -> Result<(), DbError> {
    let mut steps: BTreeMap<i64, BTreeMap<(&str, &str), Rollup>> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.kind == Kind::Server) {
        let Some(route) = span.route() else { continue };
        let step = span.end_us() / 1_000_000 / STEP_S;
        let rollups = steps.entry(step).or_default();
        let rollup = rollups
            .entry((&span.service, route))
            .or_insert_with(|| Rollup::empty(step, &span.service, route));
        rollup.requests += 1;
        rollup.errors += i64::from(span.is_error);
        rollup.durations.add(span.duration_us);
    }
    for (step, rollups) in steps {
        add_to_step(tx, step, rollups.into_values()).await?;
    }
    Ok(())
}

async fn add_to_step(tx: &mut Tx, step: i64, rollups: impl Iterator<Item = Rollup>) -> Result<(), DbError> {
    let mut known = BTreeMap::new();
    let rows = query("SELECT service, route, histogram FROM rollups WHERE step = $1").bind(step);
    for row in rows.fetch_all(&mut *tx).await? {
        known.insert((row.get::<String>("service")?, row.get::<String>("route")?), row);
    }
    let (mut free, mut others) = (MOST.saturating_sub(known.len()), Rollup::empty(step, OTHER, OTHER));
    let mut kept = Vec::new();
    for rollup in rollups {
        if (rollup.service.as_str(), rollup.route.as_str()) == (OTHER, OTHER) {
            others.add(&rollup);
            continue;
        }
        let is_known = known.contains_key(&(rollup.service.clone(), rollup.route.clone()));
        match (is_known, free) {
            (false, 0) => others.add(&rollup),
            (false, _) => {
                free -= 1;
                kept.push(rollup);
            }
            (true, _) => kept.push(rollup),
        }
    }
    for mut rollup in kept.into_iter().chain(Some(others).filter(|others| others.requests > 0)) {
        if let Some(row) = known.get(&(rollup.service.clone(), rollup.route.clone())) {
            rollup.durations.merge(&histogram(row)?);
        }
        write(tx, &rollup).await?;
    }
    Ok(())
}

async fn write(tx: &mut Tx, rollup: &Rollup) -> Result<(), DbError> {
    query(
        "INSERT INTO rollups (step, service, route, requests, errors, histogram) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (step, service, route) DO UPDATE SET requests = rollups.requests + excluded.requests, \
            errors = rollups.errors + excluded.errors, histogram = excluded.histogram",
    )
    .bind(rollup.step)
    .bind(rollup.service.as_str())
    .bind(rollup.route.as_str())
    .bind(rollup.requests)
    .bind(rollup.errors)
    .bind(rollup.durations.to_string())
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// The steps from `from` on, before `to`.
    pub async fn rollups(&self, from: i64, to: i64) -> Result<Vec<Rollup>, DbError> {
        let rows = query(
            "SELECT step, service, route, requests, errors, histogram FROM rollups \
             WHERE step >= $1 AND step < $2 ORDER BY step",
        )
        .bind(from)
        .bind(to)
        .fetch_all(&self.db)
        .await?;
        let read = |row: &Row| {
            Ok(Rollup {
                step: row.get("step")?,
                service: row.get("service")?,
                route: row.get("route")?,
                requests: row.get("requests")?,
                errors: row.get("errors")?,
                durations: histogram(row)?,
            })
        };
        rows.iter().map(read).collect()
    }
}

fn histogram(row: &Row) -> Result<Histogram, DbError> {
    let text: String = row.get("histogram")?;
    // What this program did not write counts as nothing.
    Ok(text.parse().unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {
    use shared::db::testing::sqlite_url;
    use shared::db::{Db, DbConfig};

    use super::super::migrations;
    use super::*;
    use crate::domain::Attributes;

    /// A server span of this route that ends in this step.
    pub(crate) fn served(route: &str, step: i64) -> Span {
        let end_us = step * STEP_S * 1_000_000;
        Span {
            trace_id: "1".repeat(32),
            id: "1".repeat(16),
            parent_id: None,
            links: Vec::new(),
            service: "a-service".to_owned(),
            instance: None,
            name: format!("GET {route}"),
            kind: Kind::Server,
            start_us: end_us - 1000,
            duration_us: 1000,
            is_error: false,
            message: None,
            attributes: Attributes::new(),
            events: Vec::new(),
        }
    }

    #[actix_web::test]
    async fn a_step_has_a_limited_number_of_routes_and_the_requests_of_the_others_are_counted_together() {
        let db = Db::open(&DbConfig::at(&sqlite_url()), migrations()).await.unwrap();
        let store = Store::new(db.clone());
        for batch in 0..3 {
            let mut spans: Vec<_> = (0..MOST).map(|n| served(&format!("/{batch}/{n:04}"), 7)).collect();
            spans.push(served("/0/0000", 7));
            db.transaction(async |tx: &mut Tx| add(tx, &spans.iter().collect::<Vec<_>>()).await)
                .await
                .unwrap();
        }
        let rollups = store.rollups(0, 8).await.unwrap();
        assert_eq!(rollups.len(), MOST + 1);
        let of = |route: &str| rollups.iter().find(|rollup| rollup.route == route).unwrap();
        assert_eq!((of("/0/0000").requests, of(OTHER).requests), (4, 2 * MOST as i64));
        assert_eq!(of(OTHER).durations.percentile(1.0), of("/0/0000").durations.percentile(1.0));
    }
}
