//! Configuration: read once at start, from variables, into types.
//!
//! A program's `Config::from_vars` asks [`Vars`] for each variable by name, default and a line of
//! documentation. Whatever is missing or malformed is collected, so that one start names every
//! mistake. Each variable is also a flag: `PORT=0` and `--port 0` say the same. And each may be in a
//! file: `PASSWORD_FILE=/secrets/password` keeps the password itself out of the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

/// Reads variables and remembers what was asked, and what was wrong.
pub struct Vars {
    lookup: Lookup,
    flags: BTreeMap<String, String>,
    documented: Vec<Documented>,
    problems: Vec<String>,
    answer: Option<Result<String, String>>,
}

type Lookup = Box<dyn Fn(&str) -> Option<String>>;

struct Documented {
    name: &'static str,
    default: String,
    doc: &'static str,
}

/// Why the program does not start: every variable that was missing or malformed, one a line; or the answer to a
/// flag such as `--help`. The number is the exit status.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>, i32);

impl Vars {
    /// Variables from a list.
    #[cfg(any(test, feature = "testing"))]
    pub fn from_pairs<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        let pairs: BTreeMap<String, String> =
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self::new(move |name| pairs.get(name).cloned(), BTreeMap::new())
    }

    fn new(lookup: impl Fn(&str) -> Option<String> + 'static, flags: BTreeMap<String, String>) -> Self {
        Self { lookup: Box::new(lookup), flags, documented: Vec::new(), problems: Vec::new(), answer: None }
    }

    /// The variable, or `default` (written as a person would set it) when it is absent or bad.
    ///
    /// # Panics
    /// When the default is bad.
    pub fn or<T: Variable>(&mut self, name: &'static str, default: &str, doc: &'static str) -> T {
        self.document(name, default, doc);
        let given = self.get(name).transpose();
        let value = given.and_then(|text| self.parse(name, text));
        value.unwrap_or_else(|| T::parse(default).unwrap_or_else(|why| panic!("{name}: {why}")))
    }

    /// The variable, or `None` when it is absent, empty or bad.
    pub fn optional<T: Variable>(&mut self, name: &'static str, doc: &'static str) -> Option<T> {
        self.document(name, "", doc);
        let text = self.get_filled(name)?;
        self.parse(name, text)
    }

    /// The variable. Its absence is a problem that [`Vars::finish`] reports.
    pub fn required<T: Variable>(&mut self, name: &'static str, doc: &'static str) -> Option<T> {
        self.document(name, "(required)", doc);
        let text = self.get_filled(name);
        if text.is_none() {
            self.problems.push(format!("{name} is missing: {doc}"));
        }
        text.and_then(|text| self.parse(name, text))
    }

    /// The file that `NAME_FILE` gives for a variable, which may be read again after a change.
    pub fn file_of(&self, name: &str) -> Option<PathBuf> {
        let name = format!("{name}{FILE}");
        self.flags.get(&name).cloned().or_else(|| (self.lookup)(&name)).map(PathBuf::from)
    }

    /// Adds a problem of the caller's own, such as two variables that contradict each other.
    pub fn reject(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// A flag without a value, one of `ANSWERED`: instead of starting, the program prints what `answer` gives, and
    /// exits with 0, or with 1 if that is an error.
    pub fn answer(
        &mut self,
        flag: &'static str,
        doc: &'static str,
        answer: impl FnOnce() -> Result<String, String>,
    ) {
        self.document(flag, "", doc);
        if self.flags.contains_key(flag) {
            self.answer = Some(answer());
        }
    }

    /// `config`, if every variable was good. It is `None` when a required one was not.
    ///
    /// # Errors
    /// All the problems found since the first variable was read, or the answer that a flag asks for.
    pub fn finish<C>(mut self, config: Option<C>) -> Result<C, ConfigError> {
        let known: BTreeSet<_> = self.documented.iter().map(|variable| variable.name).collect();
        let is_known =
            |flag: &str| known.contains(flag) || flag.strip_suffix(FILE).is_some_and(|of| known.contains(of));
        for flag in self.flags.keys().filter(|flag| !is_known(flag)) {
            self.problems.push(format!("--{} is not a flag of this program", flag_of(flag)));
        }
        if self.flags.contains_key(HELP) {
            self.answer = Some(Ok(self.help()));
        }
        match self.answer {
            Some(Ok(answer)) => Err(ConfigError(vec![answer], 0)),
            Some(Err(why)) => Err(ConfigError(vec![why], 1)),
            None => config.filter(|_| self.problems.is_empty()).ok_or(ConfigError(self.problems, 2)),
        }
    }

    /// The variable's text, or that of the file which its `_FILE` names.
    fn get(&self, name: &str) -> Result<Option<String>, String> {
        let given = |name: &str| self.flags.get(name).cloned().or_else(|| (self.lookup)(name));
        let file_name = format!("{name}{FILE}");
        match (given(name), given(&file_name)) {
            (Some(_), Some(_)) => Err(format!("it is set, and so is {file_name}")),
            (text, None) => Ok(text),
            (None, Some(file)) => match std::fs::read_to_string(&file) {
                Ok(text) => Ok(Some(text.trim().to_owned())),
                Err(why) => Err(format!("{file_name} is {}", bad(&file, why))),
            },
        }
    }

    /// The same, and an empty text is none.
    fn get_filled(&self, name: &str) -> Option<Result<String, String>> {
        self.get(name).map(|text| text.filter(|text| !text.is_empty())).transpose()
    }

    fn parse<T: Variable>(&mut self, name: &str, text: Result<String, String>) -> Option<T> {
        let parsed = text.and_then(|text| T::parse(&text));
        parsed.map_err(|why| self.problems.push(format!("{name} is not usable: {why}"))).ok()
    }

    fn document(&mut self, name: &'static str, default: &str, doc: &'static str) {
        self.documented.push(Documented { name, default: default.to_owned(), doc });
    }

    fn help(&self) -> String {
        let mut text = String::from(
            "Every variable is also a flag: PORT is --port. NAME_FILE names a file that holds the value of NAME.\n",
        );
        for Documented { name, default, doc } in &self.documented {
            text.push_str(&format!("  {name:<24} {doc} [{default}]\n"));
        }
        text
    }
}

const HELP: &str = "HELP";
/// Flags that have no value, by the names of their variables.
const ANSWERED: [&str; 3] = [HELP, "CHECK_CONFIG", "CONFIG_SCHEMA"];
const FILE: &str = "_FILE";

fn flag_of(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

/// Reads this process's environment and flags; on a problem prints every one and exits with 2. A flag that is
/// answered ends the program too.
pub fn load<C>(from_vars: impl FnOnce(Vars) -> Result<C, ConfigError>) -> C {
    let vars = match flags(std::env::args().skip(1)) {
        Ok(flags) => Vars::new(|name| std::env::var(name).ok(), flags),
        Err(problem) => exit(&problem, 2),
    };
    from_vars(vars).unwrap_or_else(|error| exit(&error.to_string(), error.1))
}

fn exit(text: &str, status: i32) -> ! {
    if status == 0 {
        println!("{text}")
    } else {
        eprintln!("{text}")
    }
    std::process::exit(status)
}

fn flags(args: impl Iterator<Item = String>) -> Result<BTreeMap<String, String>, String> {
    let mut flags = BTreeMap::new();
    let mut args = args;
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix("--") else {
            return Err(format!("{arg:?} is not a flag: write --name value"));
        };
        let variable = |name: &str| name.to_uppercase().replace('-', "_");
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (variable(name), value.to_owned()),
            None if ANSWERED.contains(&variable(flag).as_str()) => (variable(flag), String::new()),
            None => (variable(flag), args.next().ok_or_else(|| format!("--{flag} wants a value"))?),
        };
        flags.insert(name, value);
    }
    Ok(flags)
}

/// A type that a variable's text can become.
pub trait Variable: Sized {
    /// The value, or what is wrong with the text (which must not repeat a secret).
    fn parse(text: &str) -> Result<Self, String>;
}

macro_rules! variable_by_from_str {
    ($($kind:ty),*) => {$(
        impl Variable for $kind {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|why| bad(text, why))
            }
        }
    )*};
}
variable_by_from_str!(String, PathBuf, u16, u32, u64, usize, f64);

fn bad(text: &str, why: impl Display) -> String {
    format!("{text:?}: {why}")
}

/// `5s`, `300ms`, `2m`; a bare number is seconds.
impl Variable for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(split);
        let number: u64 = digits.parse().map_err(|_| bad(text, "write 5s, 300ms or 2m"))?;
        match unit {
            "" | "s" => Ok(Self::from_secs(number)),
            "ms" => Ok(Self::from_millis(number)),
            "m" => Ok(Self::from_secs(60 * number)),
            _ => Err(bad(text, "write 5s, 300ms or 2m")),
        }
    }
}

/// `on` or `off`.
impl Variable for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "on" | "true" | "1" => Ok(true),
            "off" | "false" | "0" => Ok(false),
            _ => Err(bad(text, "write on or off")),
        }
    }
}

impl Variable for url::Url {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|why| bad(text, why))
    }
}

/// A text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A file's path; the secret is what the file holds, without surrounding white space.
impl Variable for Secret {
    fn parse(text: &str) -> Result<Self, String> {
        let content = std::fs::read_to_string(text).map_err(|why| bad(text, why))?;
        match content.trim() {
            "" => Err(bad(text, "the file is empty")),
            secret => Ok(Self::new(secret)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Config {
        port: u16,
        wait: Duration,
        name: String,
    }

    fn from_vars(mut vars: Vars) -> Result<Config, ConfigError> {
        let (port, wait) = (vars.or("PORT", "80", "where to listen"), vars.or("WAIT", "5s", "how long"));
        let name = vars.required("NAME", "who");
        vars.finish(name.map(|name| Config { port, wait, name }))
    }

    #[test]
    fn absent_variables_take_their_defaults() {
        let config = from_vars(Vars::from_pairs([("NAME", "a"), ("WAIT", "300ms")])).unwrap();
        assert_eq!((config.port, config.wait, config.name.as_str()), (80, Duration::from_millis(300), "a"));
    }

    #[test]
    fn every_missing_or_bad_variable_is_named_in_one_error() {
        let error = from_vars(Vars::from_pairs([("PORT", "http"), ("WAIT", "soon")])).unwrap_err();
        assert_eq!(error.0.len(), 3, "{error}");
        for name in ["PORT", "WAIT", "NAME"] {
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_value_can_be_in_a_file() {
        let file = std::env::temp_dir().join(format!("config-{}", uuid::Uuid::now_v7()));
        std::fs::write(&file, "a secret\n").unwrap();
        let config = from_vars(Vars::from_pairs([("NAME_FILE", file.to_str().unwrap())])).unwrap();
        assert_eq!(config.name, "a secret");
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_read_and_a_value_given_twice_are_refused() {
        let pairs = [("PORT_FILE", "/nowhere"), ("NAME", "a"), ("NAME_FILE", "/nowhere")];
        let error = from_vars(Vars::from_pairs(pairs)).unwrap_err();
        assert_eq!(error.0.len(), 2, "{error}");
        assert!(error.0[0].contains(r#"PORT_FILE is "/nowhere": No such file"#), "{error}");
        assert!(error.0[1].contains("NAME is not usable: it is set, and so is NAME_FILE"), "{error}");
    }

    #[test]
    fn a_flag_says_the_same_as_its_variable_and_an_unknown_one_is_refused() {
        let args = ["--port", "0", "--name=b", "--colour", "red"].map(str::to_owned);
        let vars = Vars::new(|_| None, flags(args.into_iter()).unwrap());
        assert_eq!(from_vars(vars).unwrap_err().0, ["--colour is not a flag of this program"]);
    }

    #[test]
    fn a_flag_that_is_answered_needs_no_value_and_no_required_variable() {
        let answered = |result: Result<String, String>| {
            let flags = flags(["--check-config", "--port", "0"].map(str::to_owned).into_iter()).unwrap();
            let mut vars = Vars::new(|_| None, flags);
            vars.answer("CHECK_CONFIG", "checks", || result);
            from_vars(vars).unwrap_err()
        };
        let good = answered(Ok("all is well".to_owned()));
        assert_eq!((good.to_string().as_str(), good.1), ("all is well", 0));
        let bad = answered(Err("line 5".to_owned()));
        assert_eq!((bad.to_string().as_str(), bad.1), ("line 5", 1));
    }
}
