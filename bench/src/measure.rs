//! Processor time and memory of the programs, as the kernel counts them.

use std::collections::BTreeMap;
use std::time::Duration;

use xtask::process;

use crate::environment::Environment;

/// The kernel's unit of processor time: `getconf CLK_TCK` is 100 on every current Linux.
const TICK: Duration = Duration::from_millis(10);

/// The resource usage of all replicas of one service.
#[derive(Default, Clone, Copy)]
pub struct Usage {
    /// CPU time since the start of the processes.
    pub cpu: Duration,
    /// Resident memory in bytes. Only for our programs: the processes of servers share most of their memory.
    pub resident: u64,
}

/// The usage by service. A server counts with all its processes.
pub async fn usage(environment: Environment) -> BTreeMap<String, Usage> {
    let mut usage: BTreeMap<String, Usage> = BTreeMap::new();
    for replica in environment.replicas().await {
        let sum = usage.entry(replica.service.clone()).or_default();
        for process in environment.processes(&replica).await {
            sum.cpu += cpu(process).unwrap_or_default();
            if replica.port.is_some() {
                sum.resident += process::resident(process).unwrap_or_default();
            }
        }
    }
    usage
}

/// CPU time of a process and its reaped children.
pub fn cpu(process: u32) -> Option<Duration> {
    let stat = process::stat(process)?;
    // Fields 14 to 17: in the program and in the kernel, by itself and by its children.
    let ticks: u32 = stat.get(11..15)?.iter().filter_map(|field| field.parse::<u32>().ok()).sum();
    Some(TICK * ticks)
}

/// The time since the start of a process.
pub fn age(process: u32) -> Option<Duration> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let began: u32 = process::stat(process)?.get(19)?.parse().ok()?;
    Some(Duration::from_secs_f64(uptime).saturating_sub(TICK * began))
}
