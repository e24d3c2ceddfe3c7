//! One process of a program.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::process::{self, Process};
use crate::programs::{Kind, Program, programs};
use crate::secrets::Secrets;

/// The folders, ports and variables of the programs of one stack.
pub struct Layout<'a> {
    /// The folder with the built programs.
    pub binaries: &'a Path,
    /// The working directory of the programs.
    pub folder: &'a Path,
    /// The folder of the databases: a file for each.
    pub data: &'a Path,
    pub logs: &'a Path,
    /// The ports of all replicas, in the order of the list.
    pub ports: &'a [u16],
    /// The gateway's port for admins and the registry.
    pub admin_port: u16,
    pub secrets: &'a Secrets,
    /// More variables, for all programs. `{program}` in a value stands for the program's name.
    pub variables: &'a [(&'a str, &'a str)],
}

/// A process, running or not.
pub struct Replica {
    pub name: String,
    pub program: &'static Program,
    pub port: u16,
    log: PathBuf,
    command: Command,
    child: Option<Child>,
}

/// Variables that the caller's shell may have for other reasons, and that would move a program: conda exports
/// `HOST`, for one.
const NOT_INHERITED: [&str; 11] = [
    "HOST",
    "ADMIN_HOST",
    "INSTANCE",
    "ADVERTISE_URL",
    "CONFIG_FILE",
    "MESSAGES_URL",
    "TLS_FOLDER",
    "DATABASE_URL",
    "DATABASE_URL_FILE",
    "DATABASE_MIGRATIONS_URL",
    "DATABASE_MIGRATIONS_URL_FILE",
];

impl Layout<'_> {
    /// Every replica of every program, not started yet.
    pub fn replicas(&self) -> io::Result<Vec<Replica>> {
        let names =
            programs().iter().flat_map(|program| program.replica_names().map(move |name| (program, name)));
        let all: Vec<_> =
            names.zip(self.ports).map(|((program, name), port)| (program, name, *port)).collect();
        let external = all.iter().filter(|(program, ..)| program.kind == Kind::External);
        let urls: Vec<_> = external
            .map(|(program, _, port)| (program.url_variable(), format!("http://127.0.0.1:{port}")))
            .collect();
        let replica = |(program, name, port)| {
            let mut command = self.command(program, port)?;
            let has_database = program.database.is_some();
            let more =
                self.variables.iter().filter(|(name, _)| has_database || !name.starts_with("DATABASE_"));
            let more = more.map(|(name, value)| (*name, value.replace("{program}", program.name)));
            command.envs(urls.iter().cloned()).envs(more);
            Ok(Replica {
                log: self.logs.join(format!("{name}.log")),
                name,
                program,
                port,
                command,
                child: None,
            })
        };
        all.into_iter().map(replica).collect()
    }

    fn command(&self, program: &Program, port: u16) -> io::Result<Command> {
        let Self { binaries, folder, data, admin_port, secrets, .. } = self;
        let mut command = Command::new(binaries.join(program.name));
        for variable in NOT_INHERITED {
            command.env_remove(variable);
        }
        command.current_dir(folder).stdin(Stdio::null());
        command.env("PORT", port.to_string()).env("ADMIN_PORT", admin_port.to_string());
        command.env("REGISTRY_URL", format!("memory://127.0.0.1:{admin_port}"));
        command.env("GATEWAY_ADMIN_URL", format!("http://127.0.0.1:{admin_port}"));
        // The gateway is the first of the list.
        let gateway = self.ports.first().copied().unwrap_or_default();
        command.env("GATEWAY_URL", format!("http://127.0.0.1:{gateway}"));
        if program.kind != Kind::External {
            command.env("SERVICE_TOKEN_KEY_FILE", secrets.service_key(program.name));
            command.env("SERVICE_TOKEN_PUBLIC_KEYS", secrets.public_keys());
        }
        // A password hash needs 19 MiB for a moment. With a fixed threshold glibc gives such blocks back to the
        // system; by itself it would learn to keep them, in each thread.
        command.env("MALLOC_MMAP_THRESHOLD_", "1048576");
        let has_url = self.variables.iter().any(|(name, _)| *name == "DATABASE_URL_FILE");
        if let Some(database) = program.database.filter(|_| !has_url || program.kind == Kind::External) {
            command
                .env("DATABASE_URL", format!("sqlite://{}", data.join(format!("{database}.db")).display()));
        }
        for secret in &program.secrets {
            match *secret {
                "signing-key" => command.env("SIGNING_KEY_FILE", secrets.signing_key()),
                "seal-key" => command.env("SEAL_KEY_FILE", secrets.seal_key()),
                "admin" => command.envs(secrets.admin()?),
                _ => {
                    return Err(io::Error::other(format!(
                        "programs.txt: {}: no secret {secret}",
                        program.name
                    )));
                }
            };
        }
        Ok(command)
    }
}

impl Replica {
    /// Sets a variable, from the next start on.
    pub fn set(&mut self, variable: &str, value: &str) {
        self.command.env(variable, value);
    }

    pub fn start(&mut self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        self.command.stdout(log.try_clone()?).stderr(log);
        let started = self.command.spawn();
        let program = self.command.get_program().display();
        let child = started.map_err(|why| io::Error::other(format!("{program} cannot be started: {why}")))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let child = self.child.as_mut().ok_or_else(|| io::Error::other("it was not started"))?;
        child.wait()
    }

    /// The exit status, if the process has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let child = self.child.as_mut().ok_or_else(|| io::Error::other("it was not started"))?;
        child.try_wait()
    }

    /// Ends the process as a crash would (`kill -9`).
    pub fn kill(&mut self) -> io::Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill().and_then(|()| child.wait()).map(drop),
            None => Ok(()),
        }
    }

    pub fn process(&self) -> Option<Process> {
        Process::find(self.child.as_ref()?.id())
    }

    /// Memory in bytes, if it runs.
    pub fn resident(&self) -> Option<u64> {
        process::resident(self.child.as_ref()?.id())
    }

    /// Adds a line to its log.
    pub fn note(&self, line: &str) -> io::Result<()> {
        writeln!(File::options().create(true).append(true).open(&self.log)?, "supervisor: {line}")
    }
}
