//! Containers of the stack in docker compose.

use std::time::Duration;

use serde_json::Value;
use shared::stop::Stop;

use super::{Replica, output};

/// The pause between the kill of a container and its next start.
const DOWN_TIME: Duration = Duration::from_secs(3);

pub(super) async fn replicas() -> Vec<Replica> {
    let list = ["compose", "ps", "--format", "{{.Service}} {{.ID}}"];
    let listed = output("docker", &list, None).await.unwrap_or_default();
    let replica = |line: &str| {
        let (service, id) = line.split_once(' ')?;
        let program = xtask::programs().iter().find(|program| program.name == service);
        Some(Replica {
            service: service.to_owned(),
            name: id.to_owned(),
            port: program.map(|program| program.port),
        })
    };
    listed.lines().filter_map(replica).collect()
}

/// Sends a GET from inside the container, because the programs' own ports are not published.
pub(super) async fn get(replica: &Replica, path: &str, token: &str) -> Option<Value> {
    let (port, header) = (replica.port?.to_string(), format!("authorization: Bearer {token}"));
    let command = ["exec", "-e", "PROBE_HEADER", &replica.name, "probe", &port, path];
    let answer = output("docker", &command, Some(("PROBE_HEADER", &header))).await?;
    serde_json::from_str(&answer).ok()
}

pub(super) async fn processes(replica: &Replica) -> Vec<u32> {
    let listed = output("docker", &["top", &replica.name, "-eo", "pid"], None).await.unwrap_or_default();
    listed.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// The image of a container.
pub(crate) async fn image(replica: &Replica) -> Option<String> {
    inspect(replica, "{{.Image}}").await
}

/// The folder of this machine that a container has as /data.
pub(crate) async fn volume(replica: &Replica) -> Option<String> {
    let format = r#"{{range .Mounts}}{{if eq .Destination "/data"}}{{.Source}}{{end}}{{end}}"#;
    inspect(replica, format).await
}

/// Its address in the first of its networks, which this machine reaches on Linux.
pub(super) async fn address(replica: &Replica) -> Option<String> {
    let addresses = inspect(replica, "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}").await?;
    addresses.split_whitespace().next().map(str::to_owned)
}

async fn inspect(replica: &Replica, format: &str) -> Option<String> {
    let found = output("docker", &["inspect", "--format", format, &replica.name], None).await?;
    Some(found.trim().to_owned()).filter(|found| !found.is_empty())
}

pub(super) async fn kill(replica: &Replica, stop: &Stop) -> bool {
    let is_killed = docker(&["kill"], replica).await;
    stop.sleep(DOWN_TIME).await;
    docker(&["start"], replica).await && is_killed
}

pub(super) async fn pause(replica: &Replica, time: Duration, stop: &Stop) -> bool {
    let is_paused = docker(&["pause"], replica).await;
    stop.sleep(time).await;
    docker(&["unpause"], replica).await && is_paused
}

pub(super) async fn restart(replica: &Replica) -> bool {
    docker(&["restart", "--time", "40"], replica).await
}

async fn docker(command: &[&str], replica: &Replica) -> bool {
    output("docker", &[command, &[&replica.name]].concat(), None).await.is_some()
}
