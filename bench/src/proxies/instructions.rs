//! The instructions that a proxy executes for one request, in user mode, as valgrind counts them. They do not depend
//! on the machine's load, and hardly on the machine, so CI guards them where it cannot guard times.

use super::case::{CASES, Policies};
use super::client::Plain;
use super::lab::{Collector, Lab, Peer, serve};

const VALGRIND: [&str; 3] = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
/// The difference of these two runs has neither the start nor the end of the process.
const FEW: usize = 500;
const MANY: usize = 2500;

/// User instructions for a request of the first case, on one connection without concurrency. `None` if the proxy is not
/// installed. The origins must not run: ours take their ports.
pub fn of_a_request(lab: &Lab, peer: Peer, collector: Option<Collector>) -> Result<Option<f64>, String> {
    let count = |requests| count(lab, peer, requests, collector);
    let (Some(few), Some(many)) = (count(FEW)?, count(MANY)?) else { return Ok(None) };
    Ok(Some((many - few) / (MANY - FEW) as f64))
}

/// Starts the origins of our own, whose answers are always the same.
pub fn start_origins(lab: &Lab) -> Result<(), String> {
    lab.origin_ports().into_iter().try_for_each(|port| serve(port).map(drop))
}

/// User instructions of the whole process that serves `requests` requests.
fn count(
    lab: &Lab,
    peer: Peer,
    requests: usize,
    collector: Option<Collector>,
) -> Result<Option<f64>, String> {
    let Some(proxy) = lab.start(peer, Policies::Bare, &VALGRIND, collector)? else { return Ok(None) };
    let (mut plain, request) = (Plain::connect(&proxy.address)?, CASES[0].request(None));
    for _ in 0..requests {
        plain.exchange(&request)?;
    }
    drop(plain);
    let said = proxy.finish()?;
    let collected = said.lines().find_map(|line| line.split("Collected : ").nth(1)?.trim().parse().ok());
    collected.map(Some).ok_or_else(|| format!("valgrind counted nothing:\n{said}"))
}
