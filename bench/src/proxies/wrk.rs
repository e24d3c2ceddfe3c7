//! The highest request rate of a proxy, measured with wrk.

use std::process::Command;

use super::case::Case;
use super::lab::Running;

/// The result of one run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Requests per second.
    pub rate: f64,
    /// Processor time of the proxy for a request, in microseconds.
    pub cpu: f64,
}

/// Loads the proxy for this number of seconds. Any response but 2xx is an error.
pub fn run(proxy: &Running, case: &Case, seconds: u64, token: Option<&str>) -> Result<Run, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/load.lua");
    let (connections, seconds) = (format!("-c{}", case.connections), format!("-d{seconds}s"));
    let scheme = if proxy.address.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://127.0.0.1:{}{}", proxy.address.port, case.path);
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", &connections, &seconds, "--timeout", "20s", "-s", script, &url, "--"]);
    wrk.args([&case.sends.to_string(), token.unwrap_or("-")]);
    let before = proxy.cpu();
    let output = wrk.output().map_err(|why| format!("wrk: {why}"))?;
    let cpu = proxy.cpu() - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |before: &str, after: &str| -> Option<f64> {
        let line = text.lines().find(|line| line.contains(before) && line.contains(after))?;
        line.split_whitespace().find_map(|word| word.parse().ok())
    };
    if !output.status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(format!("{}: {text}{}", case.name, String::from_utf8_lossy(&output.stderr)));
    }
    let count = number(" requests in ", ",").filter(|count| *count > 0.0).ok_or_else(|| text.clone())?;
    let rate = number("Requests/sec:", "").ok_or_else(|| text.clone())?;
    Ok(Run { rate, cpu: cpu / count })
}
