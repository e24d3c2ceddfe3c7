//! What this program runs, watched by tests: they let it crash at any write, and ask how SQLite reads.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::{Db, query};

/// How many writes there are until the crash; none comes if that is not above 0.
static WRITES_LEFT: AtomicI64 = AtomicI64::new(0);
/// All that was run.
static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Lets this program abort at its `write`th write from now on; never, if that is 0. A commit counts
/// twice: the program may be about to commit, or to go on after that.
pub fn crash_at(write: i64) {
    WRITES_LEFT.store(write, Ordering::SeqCst);
}

/// The statements, of all that were run so far, for which SQLite reads a whole table, each after the
/// step of its plan that does. What is found by an index, or read in its order, is not among them.
pub async fn whole_table_reads(db: &Db) -> Vec<String> {
    let mut reads = Vec::new();
    let seen = seen().clone();
    for sql in seen.iter().filter(|run| run.contains(' ') && !run.contains("COMMIT")) {
        // What was run in another database may not be there in this one.
        let Ok(plan) = query(format!("EXPLAIN QUERY PLAN {sql}")).fetch_all(db).await else { continue };
        for step in plan {
            let step: String = step.get("detail").unwrap_or_else(|why| panic!("{sql}: {why}"));
            if is_whole(&step) {
                reads.push(format!("{step}: {sql}"));
            }
        }
    }
    reads
}

/// Called before anything is run.
pub(super) fn about_to(run: &str) {
    if !run.starts_with("SELECT") && WRITES_LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
        eprintln!("crashed when about to {run}");
        std::process::abort();
    }
    let mut seen = seen();
    if !seen.contains(run) {
        seen.insert(run.to_owned());
    }
}

fn seen() -> MutexGuard<'static, BTreeSet<String>> {
    SEEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Whether a step of a plan reads a whole table. A table has a small letter; `SCAN CONSTANT ROW` does
/// not read one.
fn is_whole(step: &str) -> bool {
    let scanned = step.strip_prefix("SCAN ").unwrap_or_default();
    scanned.starts_with(|first: char| first.is_ascii_lowercase()) && !scanned.contains(" USING ")
}
