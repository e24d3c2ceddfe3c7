//! The list of programs. Its columns are explained in `programs.txt` itself.

use std::sync::LazyLock;

#[derive(Debug)]
pub struct Program {
    pub name: &'static str,
    pub package: &'static str,
    pub kind: Kind,
    /// The port of the first replica.
    pub port: u16,
    pub replicas: u16,
    pub database: Option<&'static str>,
    pub messages: bool,
    pub secrets: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gateway,
    Service,
    Tool,
    External,
}

static PROGRAMS: LazyLock<Vec<Program>> = LazyLock::new(|| {
    let lines = include_str!("../../programs.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| Program::parse(line).unwrap_or_else(|| panic!("programs.txt: {line}"))).collect()
});

/// All programs, in the order of the list.
pub fn programs() -> &'static [Program] {
    &PROGRAMS
}

/// The programs that register and are routed to.
pub fn services() -> impl Iterator<Item = &'static Program> + Clone {
    programs().iter().filter(|program| program.kind == Kind::Service)
}

pub fn gateway() -> &'static Program {
    Program::named("gateway")
}

impl Program {
    /// # Panics
    /// When the list has no such program.
    pub fn named(name: &str) -> &'static Self {
        let found = programs().iter().find(|program| program.name == name);
        found.unwrap_or_else(|| panic!("programs.txt lists no {name}"))
    }

    fn parse(line: &'static str) -> Option<Self> {
        let columns: Vec<&'static str> = line.split_whitespace().collect();
        let [name, package, kind, port, replicas, database, messages, secrets] = columns[..] else {
            return None;
        };
        Some(Self {
            name,
            package,
            kind: match kind {
                "gateway" => Kind::Gateway,
                "service" => Kind::Service,
                "tool" => Kind::Tool,
                "external" => Kind::External,
                _ => return None,
            },
            port: port.parse().ok()?,
            replicas: replicas.parse().ok()?,
            database: (database != "-").then_some(database),
            messages: match messages {
                "yes" => true,
                "-" => false,
                _ => return None,
            },
            secrets: secrets.split(',').filter(|secret| *secret != "-").collect(),
        })
    }

    /// The names of its replicas.
    pub fn replica_names(&self) -> impl Iterator<Item = String> {
        let Self { name, replicas, .. } = *self;
        (1..=replicas).map(move |number| match replicas {
            1 => name.to_owned(),
            _ => format!("{name}-{number}"),
        })
    }

    /// The variable that tells the others where an external program is: `CARD_NETWORK_URL`.
    pub fn url_variable(&self) -> String {
        format!("{}_URL", self.name.to_uppercase().replace('-', "_"))
    }
}
