//! Processes of this machine, which a supervisor starts again when they end.

use std::time::Duration;

use e2e::Api;
use serde_json::Value;
use shared::stop::Stop;
use tokio::time::Instant;
use xtask::{Process, programs, stack};

use super::Replica;

/// The time limit for a restart: longer than a drain, and than the longest pause before a start.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn replicas() -> Vec<Replica> {
    let of = |program: &'static xtask::Program| {
        program.replica_names().zip(program.port..).map(|(name, port)| Replica {
            service: program.name.to_owned(),
            name,
            port: Some(port),
        })
    };
    programs().iter().flat_map(of).collect()
}

pub(super) async fn get(replica: &Replica, path: &str, token: &str) -> Option<Value> {
    let reply = Api::local(replica.port?).with_token(token).try_get(path).await?;
    (reply.status == 200).then_some(reply.body)
}

pub(super) fn process(replica: &Replica) -> Option<Process> {
    stack::process(&replica.name)
}

pub(super) async fn kill(replica: &Replica, stop: &Stop) -> bool {
    running(replica, stop).await.is_some_and(|process| process.signal("-KILL"))
}

pub(super) async fn pause(replica: &Replica, time: Duration, stop: &Stop) -> bool {
    let Some(process) = running(replica, stop).await else { return false };
    let is_paused = process.signal("-STOP");
    stop.sleep(time).await;
    process.signal("-CONT") && is_paused
}

pub(super) async fn restart(replica: &Replica, stop: &Stop) -> bool {
    let Some(before) = running(replica, stop).await else { return false };
    let is_told = before.signal("-TERM");
    let again = until(stop, || process(replica).filter(|now| *now != before)).await;
    again.is_some() && is_told
}

/// The process, once it runs: the supervisor starts it some seconds after the last one has ended.
async fn running(replica: &Replica, stop: &Stop) -> Option<Process> {
    until(stop, || process(replica)).await
}

async fn until(stop: &Stop, mut look: impl FnMut() -> Option<Process>) -> Option<Process> {
    let begun = Instant::now();
    while begun.elapsed() < TIMEOUT && !stop.is_requested() {
        if let Some(found) = look() {
            return Some(found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}
