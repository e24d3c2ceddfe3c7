//! Where the stack runs, and how to break it there.

mod compose;
mod embedded;

pub(crate) use compose::{image, volume};

use std::time::Duration;

use e2e::Api;
use serde_json::Value;
use shared::stop::Stop;
use tokio::process::Command;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Processes of this machine, started by `scripts/up`.
    Embedded,
    /// Containers, started by `scripts/up --compose`.
    Compose,
}

/// One process or container.
#[derive(Clone)]
pub struct Replica {
    /// `order-service`, or `postgres`.
    pub service: String,
    /// The name of the pid file, or the container's id.
    pub name: String,
    /// Where it listens, on this machine or in its container; none if it is not a program of ours.
    pub port: Option<u16>,
}

impl Environment {
    /// Everything that runs for the stack, servers included.
    pub async fn replicas(self) -> Vec<Replica> {
        match self {
            Self::Embedded => embedded::replicas(),
            Self::Compose => compose::replicas().await,
        }
    }

    /// GET on its own port; `None` unless the answer is 200 and JSON.
    pub async fn get(self, replica: &Replica, path: &str, token: &str) -> Option<Value> {
        match self {
            Self::Embedded => embedded::get(replica, path, token).await,
            Self::Compose => compose::get(replica, path, token).await,
        }
    }

    /// Its own port. `None` if it is not a program of ours.
    pub async fn api(self, replica: &Replica) -> Option<Api> {
        Some(Api::at(format!("http://{}:{}", self.address(replica).await?, replica.port?)))
    }

    /// The host's name or address.
    pub async fn address(self, replica: &Replica) -> Option<String> {
        match self {
            Self::Embedded => Some("127.0.0.1".to_owned()),
            Self::Compose => compose::address(replica).await,
        }
    }

    /// Their ids on this machine.
    pub async fn processes(self, replica: &Replica) -> Vec<u32> {
        match self {
            Self::Embedded => embedded::process(replica).map(|process| process.id).into_iter().collect(),
            Self::Compose => compose::processes(replica).await,
        }
    }

    /// Kills it as a crash would; it is started again after some seconds. As in the methods below, the result
    /// says whether it could be done; a replica that does not run yet is waited for; and on `stop` the fault
    /// is undone early.
    pub async fn kill(self, replica: &Replica, stop: &Stop) -> bool {
        match self {
            Self::Embedded => embedded::kill(replica, stop).await,
            Self::Compose => compose::kill(replica, stop).await,
        }
    }

    pub async fn pause(self, replica: &Replica, time: Duration, stop: &Stop) -> bool {
        match self {
            Self::Embedded => embedded::pause(replica, time, stop).await,
            Self::Compose => compose::pause(replica, time, stop).await,
        }
    }

    /// Stops it gracefully, and waits until it runs again.
    pub async fn restart(self, replica: &Replica, stop: &Stop) -> bool {
        match self {
            Self::Embedded => embedded::restart(replica, stop).await,
            Self::Compose => compose::restart(replica).await,
        }
    }
}

/// What a command prints, if it succeeds. Ctrl-C does not end it. `secret` is a variable of its own.
pub(crate) async fn output(program: &str, args: &[&str], secret: Option<(&str, &str)>) -> Option<String> {
    let output = Command::new(program).args(args).envs(secret).process_group(0).output().await;
    let why = match output {
        Ok(output) if output.status.success() => {
            return Some(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(why) => why.to_string(),
    };
    eprintln!("{program} {}: {why}", args.first().unwrap_or(&""));
    None
}
