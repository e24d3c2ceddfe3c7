//! Spans, and the summary of each trace.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};
use shared::db::{DbError, Query, Row, Tx, query};

use super::{Store, containing, parts, placeholders, starting, text};
use crate::domain::SpanCondition as Condition;
use crate::domain::{Attributes, Kind, Link, Span, SpanEvent, TraceSearch};

/// A trace in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub trace_id: String,
    pub start_us: i64,
    pub end_us: i64,
    /// Of the span that began first.
    pub service: String,
    pub name: String,
    pub order_id: Option<String>,
    pub spans: i64,
    pub errors: i64,
    pub services: Vec<String>,
}

/// Newest first, and where to go on.
#[derive(Debug)]
pub struct Found<T> {
    pub items: Vec<T>,
    /// What to pass as `before` for the next items.
    pub next: Option<i64>,
}

/// Most spans of a trace. A client may send requests without end in one trace, and a page shows all spans of a trace.
const MAX_SPANS: i64 = 2000;

/// Writes spans, and returns those that were not there yet: a span may be sent twice. A full trace takes no more.
pub(super) async fn add<'a>(tx: &mut Tx, spans: &'a [Span]) -> Result<Vec<&'a Span>, DbError> {
    let mut known = known(tx, spans).await?;
    let mut left = left(tx, spans).await?;
    let mut new = Vec::with_capacity(spans.len());
    for span in spans {
        let left = left.entry(span.trace_id.clone()).or_insert(MAX_SPANS);
        if *left > 0 && known.insert((span.trace_id.clone(), span.id.clone())) {
            *left -= 1;
            new.push(span);
        }
    }
    for spans in parts(&new) {
        insert(tx, spans).await?;
    }
    for summaries in parts(&summaries(&new)) {
        summarize(tx, summaries).await?;
    }
    Ok(new)
}

/// The keys of those of `spans` that are here.
async fn known(tx: &mut Tx, spans: &[Span]) -> Result<BTreeSet<(String, String)>, DbError> {
    let keys: Vec<_> = spans.iter().map(|span| [&span.trace_id, &span.id]).collect();
    let rows = query(
        "SELECT s.trace_id, s.span_id FROM json_each($1) k \
         JOIN spans s ON s.trace_id = k.value ->> 0 AND s.span_id = k.value ->> 1",
    )
    .bind(text(&keys))
    .fetch_all(tx)
    .await?;
    rows.iter().map(|row| Ok((row.get("trace_id")?, row.get("span_id")?))).collect()
}

async fn insert(tx: &mut Tx, spans: &[&Span]) -> Result<(), DbError> {
    let insert = query(format!(
        "INSERT INTO spans (trace_id, span_id, parent_id, service, instance, name, kind, route, order_id, \
            start_us, duration_us, is_error, details) VALUES {}",
        placeholders(13, spans.len())
    ));
    let bind = |insert: Query, span: &&Span| {
        insert
            .bind(span.trace_id.as_str())
            .bind(span.id.as_str())
            .bind(span.parent_id.as_deref())
            .bind(span.service.as_str())
            .bind(span.instance.as_deref())
            .bind(span.name.as_str())
            .bind(span.kind.as_str())
            .bind(span.route())
            .bind(span.order_id())
            .bind(span.start_us)
            .bind(span.duration_us)
            .bind(span.is_error)
            .bind(details(span))
    };
    spans.iter().fold(insert, bind).execute(tx).await.map(drop)
}

/// How many spans each trace of `spans` still takes; those that are new are missing.
async fn left(tx: &mut Tx, spans: &[Span]) -> Result<BTreeMap<String, i64>, DbError> {
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.trace_id).collect();
    let rows =
        query("SELECT trace_id, spans FROM traces WHERE trace_id IN (SELECT value FROM json_each($1))")
            .bind(json!(ids))
            .fetch_all(tx)
            .await?;
    rows.iter().map(|row| Ok((row.get("trace_id")?, MAX_SPANS - row.get::<i64>("spans")?))).collect()
}

/// What `spans` add to their traces.
fn summaries(spans: &[&Span]) -> Vec<Summary> {
    let mut summaries: BTreeMap<&str, Summary> = BTreeMap::new();
    for span in spans {
        let summary = summaries.entry(&span.trace_id).or_insert_with(|| Summary {
            trace_id: span.trace_id.clone(),
            start_us: i64::MAX,
            end_us: i64::MIN,
            service: String::new(),
            name: String::new(),
            order_id: None,
            spans: 0,
            errors: 0,
            services: Vec::new(),
        });
        if span.start_us < summary.start_us {
            summary.start_us = span.start_us;
            (summary.service, summary.name) = (span.service.clone(), span.name.clone());
        }
        summary.end_us = summary.end_us.max(span.end_us());
        summary.order_id = summary.order_id.take().or_else(|| span.order_id());
        summary.spans += 1;
        summary.errors += i64::from(span.is_error);
    }
    summaries.into_values().collect()
}

async fn summarize(tx: &mut Tx, summaries: &[Summary]) -> Result<(), DbError> {
    let upsert = query(format!(
        "INSERT INTO traces (trace_id, start_us, end_us, service, name, order_id, spans, errors) \
         VALUES {} ON CONFLICT (trace_id) DO UPDATE SET \
            service = CASE WHEN excluded.start_us < traces.start_us THEN excluded.service ELSE traces.service END, \
            name = CASE WHEN excluded.start_us < traces.start_us THEN excluded.name ELSE traces.name END, \
            start_us = min(traces.start_us, excluded.start_us), end_us = max(traces.end_us, excluded.end_us), \
            order_id = coalesce(traces.order_id, excluded.order_id), \
            spans = traces.spans + excluded.spans, errors = traces.errors + excluded.errors",
        placeholders(8, summaries.len())
    ));
    let bind = |upsert: Query, summary: &Summary| {
        upsert
            .bind(summary.trace_id.as_str())
            .bind(summary.start_us)
            .bind(summary.end_us)
            .bind(summary.service.as_str())
            .bind(summary.name.as_str())
            .bind(summary.order_id.as_deref())
            .bind(summary.spans)
            .bind(summary.errors)
    };
    summaries.iter().fold(upsert, bind).execute(tx).await.map(drop)
}

impl Store {
    /// The traces that have a span which matches all of `search`, and that began before `before_us`.
    pub async fn traces(
        &self,
        search: &TraceSearch,
        before_us: Option<i64>,
        limit: i64,
    ) -> Result<Found<Summary>, DbError> {
        let mut parameters = Vec::new();
        let mut conditions = Vec::new();
        for condition in &search.0 {
            conditions.push(sql(condition, &mut parameters));
        }
        let matches = match conditions.is_empty() {
            true => String::new(),
            false => format!(
                " AND EXISTS (SELECT 1 FROM spans s WHERE s.trace_id = t.trace_id AND {})",
                conditions.join(" AND ")
            ),
        };
        let sql = format!(
            "SELECT trace_id, start_us, end_us, service, name, order_id, spans, errors, \
                (SELECT group_concat(DISTINCT s.service) FROM spans s WHERE s.trace_id = t.trace_id) AS services \
             FROM traces t WHERE t.start_us < $1{matches} ORDER BY t.start_us DESC LIMIT $2"
        );
        let start = query(sql).bind(before_us.unwrap_or(i64::MAX)).bind(limit + 1);
        let rows = parameters.into_iter().fold(start, Query::bind).fetch_all(&self.db).await?;
        let items = rows.iter().map(summary).collect::<Result<Vec<_>, _>>()?;
        Ok(Found::page(items, limit, |summary| summary.start_us))
    }

    /// Which of these traces are here.
    pub async fn are_kept(&self, trace_ids: &[String]) -> Result<Vec<String>, DbError> {
        let rows = query("SELECT trace_id FROM traces WHERE trace_id IN (SELECT value FROM json_each($1))")
            .bind(json!(trace_ids))
            .fetch_all(&self.db)
            .await?;
        rows.iter().map(|row| row.get("trace_id")).collect()
    }

    /// The spans of a trace, in the order of their begin.
    pub async fn trace(&self, trace_id: &str) -> Result<Vec<Span>, DbError> {
        let rows = query(
            "SELECT trace_id, span_id, parent_id, service, instance, name, kind, start_us, duration_us, is_error, \
                details FROM spans WHERE trace_id = $1 ORDER BY start_us, id",
        )
        .bind(trace_id)
        .fetch_all(&self.db)
        .await?;
        rows.iter().map(span).collect()
    }
}

impl<T> Found<T> {
    /// A page of what was fetched: one more than `limit`, if there is more.
    pub(super) fn page(mut items: Vec<T>, limit: i64, place: impl Fn(&T) -> i64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let is_last = items.len() <= limit;
        items.truncate(limit);
        let next = items.last().filter(|_| !is_last).map(place);
        Self { items, next }
    }
}

/// A condition on the span `s`. Its values go into `parameters`, the first of which is $3.
fn sql(condition: &Condition, parameters: &mut Vec<shared::db::Value>) -> String {
    let mut bind = |value: shared::db::Value| {
        parameters.push(value);
        format!("${}", parameters.len() + 2)
    };
    match condition {
        Condition::Service(name) => format!("s.service = {}", bind(name.as_str().into())),
        Condition::Route(part) => format!("s.route LIKE {} ESCAPE '\\'", bind(containing(part).into())),
        Condition::Name(part) => format!("s.name LIKE {} ESCAPE '\\'", bind(containing(part).into())),
        Condition::Kind(kind) => format!("s.kind = {}", bind(kind.as_str().into())),
        Condition::IsError(is_error) => format!("s.is_error = {}", bind((*is_error).into())),
        Condition::LongerThan(us) => format!("s.duration_us > {}", bind((*us).into())),
        Condition::ShorterThan(us) => format!("s.duration_us < {}", bind((*us).into())),
        Condition::Order(id) => format!("s.order_id LIKE {} ESCAPE '\\'", bind(starting(id).into())),
        Condition::Trace(id) => format!("s.trace_id LIKE {} ESCAPE '\\'", bind(starting(id).into())),
        Condition::Attribute(key, value) => {
            let key = bind(key.as_str().into());
            format!(
                "EXISTS (SELECT 1 FROM json_each(s.details, '$.attributes') a WHERE a.key = {key} \
                 AND CAST(a.value AS TEXT) = {})",
                bind(value.as_str().into())
            )
        }
        Condition::Word(word) => {
            let (part, start) = (bind(containing(word).into()), bind(starting(word).into()));
            format!(
                "(s.name LIKE {part} ESCAPE '\\' OR s.route LIKE {part} ESCAPE '\\' \
                 OR s.trace_id LIKE {start} ESCAPE '\\' OR s.order_id LIKE {start} ESCAPE '\\')"
            )
        }
    }
}

/// What a span has beside its columns.
#[derive(Serialize)]
struct Details<'a> {
    message: Option<&'a str>,
    attributes: &'a Attributes,
    links: Vec<[&'a str; 2]>,
    events: Vec<(i64, &'a str, &'a Attributes)>,
}

fn details(span: &Span) -> String {
    text(&Details {
        message: span.message.as_deref(),
        attributes: &span.attributes,
        links: span.links.iter().map(|link| [&*link.trace_id, &*link.span_id]).collect(),
        events: span.events.iter().map(|event| (event.at_us, &*event.name, &event.attributes)).collect(),
    })
}

fn summary(row: &Row) -> Result<Summary, DbError> {
    let services: Option<String> = row.get("services")?;
    Ok(Summary {
        trace_id: row.get("trace_id")?,
        start_us: row.get("start_us")?,
        end_us: row.get("end_us")?,
        service: row.get("service")?,
        name: row.get("name")?,
        order_id: row.get("order_id")?,
        spans: row.get("spans")?,
        errors: row.get("errors")?,
        services: services.unwrap_or_default().split(',').map(str::to_owned).collect(),
    })
}

fn span(row: &Row) -> Result<Span, DbError> {
    let mut details: Value = row.get("details")?;
    let kind: String = row.get("kind")?;
    let object =
        |value: Value| if let Value::Object(fields) = value { fields } else { serde_json::Map::new() };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let links = list(&details["links"]);
    let events = list(&details["events"]);
    Ok(Span {
        trace_id: row.get("trace_id")?,
        id: row.get("span_id")?,
        parent_id: row.get("parent_id")?,
        links: links.iter().map(|link| Link { trace_id: text(&link[0]), span_id: text(&link[1]) }).collect(),
        service: row.get("service")?,
        instance: row.get("instance")?,
        name: row.get("name")?,
        kind: Kind::named(&kind).unwrap_or(Kind::Internal),
        start_us: row.get("start_us")?,
        duration_us: row.get("duration_us")?,
        is_error: row.get("is_error")?,
        message: details["message"].as_str().map(str::to_owned),
        attributes: object(details["attributes"].take()),
        events: events
            .into_iter()
            .map(|mut event| SpanEvent {
                at_us: event[0].as_i64().unwrap_or_default(),
                name: text(&event[1]),
                attributes: object(event[2].take()),
            })
            .collect(),
    })
}
