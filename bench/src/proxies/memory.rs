//! The memory that connections cost a proxy.

use std::fs;
use std::thread;

use xtask::process;

use super::case::{CASES, Case};
use super::client::Plain;
use super::lab::Running;

const IDLE: usize = 1000;
/// Together they move 1 GiB up, and 1 GiB down.
const BUSY: usize = 32;
const TRANSFERS: usize = 32;

/// Bytes of memory for each connection that has had one answer, and waits.
pub fn of_an_idle_connection(proxy: &Running) -> Result<f64, String> {
    let request = CASES[0].request(None);
    let mut first = Plain::connect(&proxy.address)?;
    for _ in 0..100 {
        first.exchange(&request)?;
    }
    let before = resident(proxy)?;
    let mut open = Vec::new();
    for _ in 0..IDLE {
        let mut plain = Plain::connect(&proxy.address)?;
        plain.exchange(&request)?;
        open.push(plain);
    }
    Ok((resident(proxy)? - before) / IDLE as f64)
}

/// The largest growth of the memory, in bytes per connection, while 1 GiB is uploaded and 1 GiB downloaded.
pub fn of_large_bodies(proxy: &Running) -> Result<f64, String> {
    let named = |key: &str| CASES.iter().find(|case| case.key == key).ok_or("no such case");
    let (up, down) = (named("post1m")?, named("get1m")?);
    Plain::connect(&proxy.address)?.exchange(&CASES[0].request(None))?;
    let before = resident(proxy)?;
    // The highest value begins again at the present one.
    fs::write(format!("/proc/{}/clear_refs", proxy.id()), "5").map_err(|why| why.to_string())?;
    let transfer = |case: &Case| -> Result<(), String> {
        let request = case.request(None);
        let run = || -> Result<(), String> {
            let mut plain = Plain::connect(&proxy.address)?;
            (0..TRANSFERS).try_for_each(|_| plain.exchange(&request).map(drop))
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..BUSY).map(|_| scope.spawn(run)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "a client has panicked".to_owned())?)
        })
    };
    transfer(up)?;
    transfer(down)?;
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.id())).map_err(|why| why.to_string())?;
    let highest =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    Ok((highest.unwrap_or(0.0) * 1024.0 - before).max(0.0) / BUSY as f64)
}

fn resident(proxy: &Running) -> Result<f64, String> {
    process::resident(proxy.id()).map(|bytes| bytes as f64).ok_or_else(|| "the proxy has ended".to_owned())
}
