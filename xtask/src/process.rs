//! Processes: what the kernel says of them (proc(5)), the files that name them, and signals.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// A process that was running when it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub id: u32,
    /// The start in clock ticks since the machine's start. A later process with the same id has another value.
    began: String,
}

impl Process {
    /// `None` if there is none, or it is a zombie.
    pub fn find(id: u32) -> Option<Self> {
        let stat = stat(id)?;
        let (state, began) = (stat.first()?, stat.get(19)?);
        (state != "Z").then(|| Self { id, began: began.clone() })
    }

    pub fn is_running(&self) -> bool {
        Self::find(self.id).as_ref() == Some(self)
    }

    /// Writes `NAME.pid`, which holds the id alone, and beside it `NAME.began`.
    pub fn record(&self, folder: &Path, name: &str) -> io::Result<()> {
        fs::write(folder.join(format!("{name}.began")), &self.began)?;
        fs::write(folder.join(format!("{name}.pid")), self.id.to_string())
    }

    /// The process that was recorded under this name, if it is still running.
    pub fn recorded(folder: &Path, name: &str) -> Option<Self> {
        let read = |what: &str| fs::read_to_string(folder.join(format!("{name}.{what}"))).ok();
        let process = Self { id: read("pid")?.trim().parse().ok()?, began: read("began")? };
        process.is_running().then_some(process)
    }

    pub fn forget(folder: &Path, name: &str) {
        for what in ["pid", "began"] {
            let _ = fs::remove_file(folder.join(format!("{name}.{what}")));
        }
    }

    /// Sends a signal as kill(1) names it: `-KILL`. Returns whether it was sent.
    pub fn signal(&self, signal: &str) -> bool {
        self.is_running() && {
            // In a group of its own, so that Ctrl-C does not end it half-way.
            let mut kill = Command::new("kill");
            let sent = kill.args([signal, &self.id.to_string()]).process_group(0).status();
            sent.is_ok_and(|status| status.success())
        }
    }
}

/// Memory in bytes.
pub fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(1024 * line.split_whitespace().nth(1)?.parse::<u64>().ok()?)
}

/// The fields of `stat` from the third on, which is the state: field `n` is at `n - 3`.
pub fn stat(process: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second, the name in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}
