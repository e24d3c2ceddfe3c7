//! The metrics of a process that Prometheus' own client libraries have, read from Linux' `/proc`. On other systems there
//! are none.

use std::fmt::Write as _;
use std::fs::{read_dir, read_to_string};

/// Units of processor time per second in `/proc` (`USER_HZ`, the same on every Linux).
const TICKS: f64 = 100.0;

/// The metrics of the process, as Prometheus text.
pub(super) fn text() -> String {
    let mut text = String::new();
    for (name, kind, help, value) in metrics().unwrap_or_default() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    text
}

type Metric = (&'static str, &'static str, &'static str, f64);

fn metrics() -> Option<Vec<Metric>> {
    let stat = read_to_string("/proc/self/stat").ok()?;
    // The second field, the program's name, may have spaces: the third is the first after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let (status, limits) =
        (read_to_string("/proc/self/status").ok()?, read_to_string("/proc/self/limits").ok()?);
    let bytes = |name: &str| Some(1024.0 * number_after(&status, name)?);
    let started = number_after(&read_to_string("/proc/stat").ok()?, "btime ")? + field(22)? / TICKS;
    let cpu = (field(14)? + field(15)?) / TICKS;
    let open_files = read_dir("/proc/self/fd").ok()?.count() as f64;
    let max_files = number_after(&limits, "Max open files").unwrap_or_default();
    Some(vec![
        ("process_cpu_seconds_total", "counter", "User and system CPU time in seconds.", cpu),
        ("process_open_fds", "gauge", "Open file descriptors.", open_files),
        ("process_max_fds", "gauge", "Open file descriptors at most; 0 if there is no limit.", max_files),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory in bytes.", bytes("VmSize:")?),
        ("process_resident_memory_bytes", "gauge", "Resident memory in bytes.", bytes("VmRSS:")?),
        ("process_start_time_seconds", "gauge", "Start in seconds since 1970.", started),
        ("process_threads", "gauge", "Threads.", field(20)?),
    ])
}

fn number_after(text: &str, name: &str) -> Option<f64> {
    text.split_once(name)?.1.split_whitespace().next()?.parse().ok()
}
