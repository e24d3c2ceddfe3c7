//! Processes under `scripts/supervise`, which starts again what ends.

use std::time::Duration;

use e2e::Api;
use serde_json::Value;
use shared::stop::Stop;
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
    let reply = Api::local(port).with_token(token).try_get(path).await?;
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

pub(super) async fn kill(program: &Program, stop: &Stop) -> bool {
    match running(program, stop).await {
        Some(process) => signal(process, "-KILL").await,
        None => false,
    }
}

pub(super) async fn pause(program: &Program, time: Duration, stop: &Stop) -> bool {
    let Some(process) = running(program, stop).await else { return false };
    let is_paused = signal(process, "-STOP").await;
    stop.sleep(time).await;
    signal(process, "-CONT").await && is_paused
}

pub(super) async fn restart(program: &Program, stop: &Stop) -> bool {
    let Some(before) = running(program, stop).await else { return false };
    let is_told = signal(before, "-TERM").await;
    let again = until(stop, || process(program).filter(|now| *now != before)).await;
    again.is_some() && is_told
}

/// The process, when it runs: after an end, the next begins some seconds later.
async fn running(program: &Program, stop: &Stop) -> Option<u32> {
    until(stop, || process(program)).await
}

async fn until(stop: &Stop, mut look: impl FnMut() -> Option<u32>) -> Option<u32> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && !stop.is_requested() {
        if let Some(found) = look() {
            return Some(found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

async fn signal(process: u32, signal: &str) -> bool {
    output("kill", &[signal, &process.to_string()]).await.is_some()
}
