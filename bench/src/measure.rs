//! What a stack uses: processor time and memory, as the system counts them.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::process;

use crate::ground::Ground;

/// What the kernel counts processor time in (`getconf CLK_TCK`), on every Linux of today.
const TICK: Duration = Duration::from_millis(10);

/// What the replicas of one service have used.
#[derive(Default, Clone, Copy)]
pub struct Usage {
    /// Processor time since they began.
    pub cpu: Duration,
    /// Memory now, in bytes; 0 for a server that is not ours, whose processes share most of theirs.
    pub resident: u64,
}

/// By service. A server of several processes counts with those that it has started.
pub async fn usage(ground: Ground) -> BTreeMap<String, Usage> {
    let mut usage: BTreeMap<String, Usage> = BTreeMap::new();
    for program in ground.programs().await {
        let sum = usage.entry(program.service.clone()).or_default();
        for process in ground.processes(&program).await {
            sum.cpu += cpu(process).unwrap_or_default();
            if program.is_ours() {
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
