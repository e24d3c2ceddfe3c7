//! Containers of the stack in docker compose.

use std::time::Duration;

use serde_json::Value;
use shared::stop::Stop;

use super::{Program, output};

/// From the death of a container to its next start.
const DEAD: Duration = Duration::from_secs(3);

pub(super) async fn programs() -> Vec<Program> {
    let list = ["compose", "ps", "--format", "{{.Service}} {{.ID}}"];
    let listed = output("docker", &list).await.unwrap_or_default();
    let program = |line: &str| {
        let (service, id) = line.split_once(' ')?;
        Some(Program { service: service.to_owned(), name: id.to_owned() })
    };
    listed.lines().filter_map(program).collect()
}

/// From inside: the programs' own ports are not published.
pub(super) async fn ask(program: &Program, path: &str, token: &str) -> Option<Value> {
    let (port, bearer) = (program.port()?.to_string(), format!("authorization: Bearer {token}"));
    let answer = output("docker", &["exec", &program.name, "probe", &port, path, &bearer]).await?;
    serde_json::from_str(&answer).ok()
}

pub(super) async fn processes(program: &Program) -> Vec<u32> {
    let listed = output("docker", &["top", &program.name, "-eo", "pid"]).await.unwrap_or_default();
    listed.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

pub(super) async fn kill(program: &Program, stop: &Stop) -> bool {
    let is_dead = docker(&["kill"], program).await;
    stop.sleep(DEAD).await;
    docker(&["start"], program).await && is_dead
}

pub(super) async fn pause(program: &Program, time: Duration, stop: &Stop) -> bool {
    let is_paused = docker(&["pause"], program).await;
    stop.sleep(time).await;
    docker(&["unpause"], program).await && is_paused
}

pub(super) async fn restart(program: &Program) -> bool {
    docker(&["restart", "--time", "40"], program).await
}

async fn docker(command: &[&str], program: &Program) -> bool {
    output("docker", &[command, &[&program.name]].concat()).await.is_some()
}
