//! What the stack runs on, and the means to hurt it there.

mod compose;
mod embedded;

use std::time::Duration;

use serde_json::Value;
use shared::stop::Stop;
use tokio::process::Command;

/// Processes of this machine, started by `scripts/up`; or containers, by `scripts/up --compose`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// `data/run` says which processes.
    Embedded,
    /// `docker compose ps` says which containers.
    Compose,
}

/// One process or container.
#[derive(Clone)]
pub struct Program {
    /// Whose replica it is: `order-service`, or `postgres`.
    pub service: String,
    /// What names it on its ground: that of its pid file, or the container's id.
    pub name: String,
}

/// The services, of which there are two replicas each.
pub const SERVICES: [&str; 3] = ["user-service", "order-service", "payment-service"];

/// The port of a service's first replica; on this machine the second has the next one.
const PORTS: [(&str, u16); 4] =
    [("user-service", 3001), ("order-service", 3011), ("payment-service", 3021), ("card-network", 3031)];

impl Program {
    /// Whether it is one of ours, and no server that they use.
    pub fn is_ours(&self) -> bool {
        self.service == "gateway" || self.port().is_some()
    }

    fn port(&self) -> Option<u16> {
        PORTS.iter().find(|(service, _)| *service == self.service).map(|(_, port)| *port)
    }
}

impl Ground {
    /// Everything that runs for the stack.
    pub async fn programs(self) -> Vec<Program> {
        match self {
            Self::Embedded => embedded::programs(),
            Self::Compose => compose::programs().await,
        }
    }

    /// What a program answers on its own port; `None` unless that is 200 and JSON.
    pub async fn ask(self, program: &Program, path: &str, token: &str) -> Option<Value> {
        match self {
            Self::Embedded => embedded::ask(program, path, token).await,
            Self::Compose => compose::ask(program, path, token).await,
        }
    }

    /// The processes of a program, by their ids on this machine.
    pub async fn processes(self, program: &Program) -> Vec<u32> {
        match self {
            Self::Embedded => embedded::process(program).into_iter().collect(),
            Self::Compose => compose::processes(program).await,
        }
    }

    /// Ends it as a crash would; it comes back after some seconds. Like all that follow, it says whether it
    /// could be done, waits for a program that does not run yet, and is undone early on `stop`.
    pub async fn kill(self, program: &Program, stop: &Stop) -> bool {
        match self {
            Self::Embedded => embedded::kill(program, stop).await,
            Self::Compose => compose::kill(program, stop).await,
        }
    }

    /// Lets it stand still for so long.
    pub async fn pause(self, program: &Program, time: Duration, stop: &Stop) -> bool {
        match self {
            Self::Embedded => embedded::pause(program, time, stop).await,
            Self::Compose => compose::pause(program, time, stop).await,
        }
    }

    /// Asks it to stop, and waits until it runs again.
    pub async fn restart(self, program: &Program, stop: &Stop) -> bool {
        match self {
            Self::Embedded => embedded::restart(program, stop).await,
            Self::Compose => compose::restart(program).await,
        }
    }
}

/// What a command prints, if it ends well. It is no part of what Ctrl-C ends.
pub(crate) async fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).process_group(0).output().await;
    let why = match output {
        Ok(output) if output.status.success() => {
            return Some(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(why) => why.to_string(),
    };
    // Not all arguments: one may be a token.
    eprintln!("{program} {}: {why}", args.first().unwrap_or(&""));
    None
}
