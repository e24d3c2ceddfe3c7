//! Served requests by service and route, in steps of 30 s. They stay when the spans are deleted for their size.

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

pub(super) async fn add(tx: &mut Tx, spans: &[&Span]) -> Result<(), DbError> {
    let mut rollups: BTreeMap<(i64, &str, &str), Rollup> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.kind == Kind::Server) {
        let Some(route) = span.route() else { continue };
        let step = span.end_us() / 1_000_000 / STEP_S;
        let rollup = rollups.entry((step, &span.service, route)).or_insert_with(|| Rollup {
            step,
            service: span.service.clone(),
            route: route.to_owned(),
            requests: 0,
            errors: 0,
            durations: Histogram::default(),
        });
        rollup.requests += 1;
        rollup.errors += i64::from(span.is_error);
        rollup.durations.add(span.duration_us);
    }
    for mut rollup in rollups.into_values() {
        let known = query("SELECT histogram FROM rollups WHERE step = $1 AND service = $2 AND route = $3")
            .bind(rollup.step)
            .bind(rollup.service.as_str())
            .bind(rollup.route.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(row) = known {
            rollup.durations.merge(&histogram(&row)?);
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
