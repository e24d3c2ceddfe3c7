//! Test hooks: crash at the n-th write, and find statements that read a whole table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::{Db, query};

/// Begins a statement of a test, whose plan does not count.
pub const OF_A_TEST: &str = "/* test */ ";

/// Writes until the crash; no crash if it is not above 0.
static WRITES_LEFT: AtomicI64 = AtomicI64::new(0);
/// Every statement that was run, and how often.
static SEEN: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// Aborts this program at its `write`th write from now on; 0 turns this off. A commit counts as two writes:
/// the crash may be before or after it.
pub fn crash_at(write: i64) {
    WRITES_LEFT.store(write, Ordering::SeqCst);
}

/// How often statements that contain `part` were run so far.
pub fn runs(part: &str) -> usize {
    seen().iter().filter(|(sql, _)| sql.contains(part)).map(|(_, times)| times).sum()
}

/// The statements run so far for which SQLite scans a whole table without an index, each prefixed by the step
/// of its query plan.
pub async fn whole_table_reads(db: &Db) -> Vec<String> {
    let plans = query_plans(db).await;
    // The result of a part of a statement is no table.
    let is_result = |scan: &str, sql: &String| {
        let name = scan.trim_start_matches("SCAN ");
        let made = [format!("MATERIALIZE {name}"), format!("CO-ROUTINE {name}")];
        plans.iter().any(|(step, of)| of == sql && made.contains(step))
    };
    let steps = plans.iter().filter(|(step, sql)| is_whole(step) && !is_result(step, sql));
    steps.map(|(step, sql)| format!("{step}: {sql}")).collect()
}

/// Each step of the plan for each statement run so far, with the statement. Those of PostgreSQL are the plans for
/// unknown values, which it keeps for prepared statements.
pub async fn query_plans(db: &Db) -> Vec<(String, String)> {
    if db.kind() == "postgres" {
        query(GENERIC_PLAN).execute(db).await.unwrap_or_else(|why| panic!("{why}"));
    }
    let mut steps = Vec::new();
    let seen = seen().clone();
    for sql in seen.keys().filter(|run| run.contains(' ') && !run.contains("COMMIT")) {
        let plans = match db.kind() {
            // Without a parameter's value, the type of an array is unknown.
            "postgres" => ["uuid[]", "bigint[]"]
                .map(|array| query("SELECT generic_plan($1) AS detail").bind(with_arrays_of(array, sql)))
                .into(),
            _ => vec![query(format!("EXPLAIN QUERY PLAN {sql}"))],
        };
        let mut steps_of_sql = Vec::new();
        for plan in plans {
            // A statement of another database may not fit this one.
            if let Ok(plan) = plan.fetch_all(db).await {
                steps_of_sql = plan;
                break;
            }
        }
        for step in steps_of_sql {
            let step: String = step.get("detail").unwrap_or_else(|why| panic!("{sql}: {why}"));
            steps.push((step, sql.clone()));
        }
    }
    steps
}

fn with_arrays_of(array: &str, sql: &str) -> String {
    (1..=3).fold(sql.to_owned(), |sql, number| {
        sql.replace(&format!("UNNEST(${number})"), &format!("UNNEST(${number}::{array})"))
    })
}

/// Where the costs of an index and of the whole table are nearly equal, this plan reads the whole table.
const GENERIC_PLAN: &str = "CREATE OR REPLACE FUNCTION generic_plan(sql text) RETURNS SETOF text LANGUAGE plpgsql \
    SET random_page_cost = 10 AS \
    'BEGIN RETURN QUERY EXECUTE ''EXPLAIN (GENERIC_PLAN, COSTS OFF) '' || sql; END'";

/// The statements run so far for which PostgreSQL reads one of `tables` from beginning to end, each with the step of its
/// plan.
pub async fn sequential_scans(db: &Db, tables: &[&str]) -> Vec<String> {
    let plans = query_plans(db).await;
    let planned: BTreeSet<_> = plans.iter().map(|(_, sql)| sql).collect();
    assert!(planned.len() > 20, "{} of {} statements have a plan", planned.len(), seen().len());
    let is_scan = |step: &str| {
        let mut words = step.split_whitespace().skip_while(|word| *word != "Seq").skip(3);
        words.next().is_some_and(|table| tables.contains(&table))
    };
    let scans = plans.iter().filter(|(step, _)| is_scan(step));
    scans.map(|(step, sql)| format!("{}: {sql}", step.trim())).collect()
}

/// Copies each row of a table `times` times on PostgreSQL, and updates its statistics. `changed` is SQL: the names of columns and their values
/// in the copies, at least of those that are unique.
pub async fn multiply(db: &Db, table: &str, times: u32, changed: &str) {
    let copy = format!(
        "{OF_A_TEST}INSERT INTO {table} OVERRIDING SYSTEM VALUE \
         SELECT (jsonb_populate_record(one, jsonb_build_object({changed}))).* \
         FROM {table} AS one, generate_series(1, {times}) AS number"
    );
    let copied = query(copy).execute(db).await.unwrap_or_else(|why| panic!("{table}: {why}"));
    assert!(copied > 0, "{table} has no row");
    let vacuum = query(format!("{OF_A_TEST}VACUUM ANALYZE {table}"));
    vacuum.execute(db).await.unwrap_or_else(|why| panic!("{table}: {why}"));
}

/// Called before each statement.
pub(super) fn about_to(run: &str) {
    if !run.starts_with("SELECT") && WRITES_LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
        eprintln!("crashed when about to {run}");
        std::process::abort();
    }
    let mut seen = seen();
    if let Some(times) = seen.get_mut(run) {
        *times += 1;
    } else if !run.starts_with(OF_A_TEST) {
        seen.insert(run.to_owned(), 1);
    }
}

fn seen() -> MutexGuard<'static, BTreeMap<String, usize>> {
    SEEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Whether a step of a query plan reads a whole table. Table names are lower case; `SCAN CONSTANT ROW` reads
/// none.
fn is_whole(step: &str) -> bool {
    let scanned = step.strip_prefix("SCAN ").unwrap_or_default();
    // An array is a virtual table.
    let is_stored = !scanned.contains(" USING ") && !scanned.contains(" VIRTUAL TABLE ");
    scanned.starts_with(|first: char| first.is_ascii_lowercase()) && is_stored
}
