//! Processor time and memory of the programs, as the kernel counts them.

use std::collections::BTreeMap;
use std::time::Duration;

use xtask::process;

use crate::environment::Environment;

/// The kernel's unit of processor time: `getconf CLK_TCK` is 100 on every current Linux.
const TICK: Duration = Duration::from_millis(10);

/// Of all replicas of one service.
#[derive(Default, Clone, Copy)]
pub struct Usage {
    /// Since they began.
    pub cpu: Duration,
    /// In bytes, of our programs only: the processes of servers share most of their memory.
    pub resident: u64,
}

/// By service, with all processes of a server.
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

/// Of the process, and of those that it has waited for.
fn cpu(process: u32) -> Option<Duration> {
    let stat = process::stat(process)?;
    // Fields 14 to 17: in the program and in the kernel, by itself and by its children.
    let ticks: u32 = stat.get(11..15)?.iter().filter_map(|field| field.parse::<u32>().ok()).sum();
    Some(TICK * ticks)
}
