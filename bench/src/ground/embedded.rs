//! Processes under `scripts/supervise`, which starts again what ends.

use std::time::Duration;

use e2e::Api;
use serde_json::Value;
use tokio::time::Instant;

use super::{Program, output};

const RUN: &str = "data/run";
/// Longer than a drain, and than the longest pause before a start.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn programs() -> Vec<Program> {
    let files = std::fs::read_dir(RUN).into_iter().flatten().flatten();
    let names = files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".child")?.to_owned()));
    let mut programs: Vec<_> = names
        .map(|name| Program { service: name.trim_end_matches(['-', '1', '2']).to_owned(), name })
        .collect();
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    programs
}

pub(super) async fn ask(program: &Program, path: &str, token: &str) -> Option<Value> {
    let port = program.port()? + u16::from(program.name.ends_with("-2"));
    let reply = Api::at(port).with_token(token).try_get(path).await?;
    (reply.status == 200).then_some(reply.body)
}

/// The process, if it is still the one that was started: ids are used again.
pub(super) fn process(program: &Program) -> Option<u32> {
    let file = std::fs::read_to_string(format!("{RUN}/{}.child", program.name)).ok()?;
    let (process, began) = file.trim().split_once(' ')?;
    let process = process.parse().ok()?;
    // Field 22 is when it began.
    (e2e::process::stat(process)?.get(19)? == began).then_some(process)
}

pub(super) async fn signal(program: &Program, signal: &str) -> bool {
    match process(program) {
        Some(process) => output("kill", &[signal, &process.to_string()]).await.is_some(),
        None => false,
    }
}

pub(super) async fn pause(program: &Program, time: Duration) -> bool {
    let is_paused = signal(program, "-STOP").await;
    tokio::time::sleep(time).await;
    is_paused && signal(program, "-CONT").await
}

pub(super) async fn restart(program: &Program) -> bool {
    let (before, begun) = (process(program), Instant::now());
    let is_told = signal(program, "-TERM").await;
    while begun.elapsed() < PATIENCE {
        let now = process(program);
        if now.is_some() && now != before {
            return is_told;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}
