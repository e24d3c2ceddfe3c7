//! The permitted calls and events: the table `calls.txt` of a system, whose columns are explained there.

use std::collections::BTreeSet;

/// The route of events that are pushed over HTTP.
pub const MESSAGES: &str = "/messages";
const EVENT: &str = "EVENT";
const ANYBODY: &str = "*";

/// The rows of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls(Vec<Row>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    caller: String,
    callee: String,
    /// The method of a request, or `EVENT`.
    method: String,
    /// The route of a request, or the type of an event without its version.
    what: String,
    for_person: bool,
}

impl Calls {
    /// # Errors
    /// The first malformed row.
    pub fn parse(table: &str) -> Result<Self, String> {
        let rows = table.lines().filter(|line: &&str| !line.starts_with('#') && !line.trim().is_empty());
        rows.map(|line| Row::parse(line).ok_or_else(|| format!("{line:?} is not a row")))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether `caller` may send `callee` this request. HEAD is allowed where GET is.
    pub fn allow(&self, caller: &str, callee: &str, method: &str, route: &str, for_person: bool) -> bool {
        let method = if method == "HEAD" { "GET" } else { method };
        self.of(caller, callee).any(|row| match row.method.as_str() {
            EVENT => method == "POST" && route == MESSAGES && !for_person,
            allowed => allowed == method && row.what == route && (row.for_person || !for_person),
        })
    }

    /// Whether `source` may send `callee` events of this type.
    pub fn accept(&self, source: &str, callee: &str, kind: &str) -> bool {
        let unversioned = match kind.rsplit_once(".v") {
            Some((name, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => kind,
        };
        self.of(source, callee).any(|row| row.method == EVENT && row.what == unversioned)
    }

    /// Every service that the table names.
    pub fn services(&self) -> Vec<&str> {
        let names = self.0.iter().flat_map(|row| [row.caller.as_str(), row.callee.as_str()]);
        names.filter(|name| *name != ANYBODY).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn of<'a>(&'a self, caller: &'a str, callee: &'a str) -> impl Iterator<Item = &'a Row> {
        self.0
            .iter()
            .filter(move |row| row.callee == callee && [ANYBODY, caller].contains(&row.caller.as_str()))
    }
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let columns: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let [caller, callee, method, what, on_behalf] = <[String; 5]>::try_from(columns).ok()?;
        let for_person = match on_behalf.as_str() {
            "person" if method != EVENT => true,
            "-" => false,
            _ => return None,
        };
        Some(Self { caller, callee, method, what, for_person })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls() -> Calls {
        let table = "\
            # a comment\n\
            a  b  GET    /things/{id}  person\n\
            a  b  EVENT  thing.done    -\n\
            *  c  PUT    /me           -\n";
        Calls::parse(table).unwrap()
    }

    #[test]
    fn what_has_no_row_is_refused() {
        let calls = calls();
        assert!(calls.allow("a", "b", "GET", "/things/{id}", true));
        assert!(calls.allow("a", "b", "HEAD", "/things/{id}", false));
        assert!(calls.allow("a", "b", "POST", MESSAGES, false), "a sender of events");
        assert!(calls.allow("x", "c", "PUT", "/me", false), "everybody");
        for (caller, callee, method, route, for_person) in [
            ("x", "b", "GET", "/things/{id}", false),
            ("a", "c", "GET", "/things/{id}", false),
            ("a", "b", "DELETE", "/things/{id}", false),
            ("a", "b", "GET", "/things", false),
            ("a", "b", "EVENT", "thing.done", false),
            ("a", "b", "POST", MESSAGES, true),
            ("b", "a", "POST", MESSAGES, false),
            ("x", "c", "PUT", "/me", true),
        ] {
            assert!(!calls.allow(caller, callee, method, route, for_person), "{caller} {method} {route}");
        }
    }

    #[test]
    fn an_event_is_accepted_in_every_version_from_its_source_only() {
        let calls = calls();
        assert!(calls.accept("a", "b", "thing.done.v1") && calls.accept("a", "b", "thing.done.v12"));
        for (source, callee, kind) in [
            ("b", "a", "thing.done.v1"),
            ("x", "b", "thing.done.v1"),
            ("a", "b", "thing.undone.v1"),
            ("a", "b", "thing.done.v1.vx"),
            ("a", "b", "/things/{id}"),
        ] {
            assert!(!calls.accept(source, callee, kind), "{source} {kind}");
        }
    }

    #[test]
    fn a_malformed_row_is_named() {
        for bad in ["a b GET /things", "a b GET /things everybody", "a b EVENT thing.done person"] {
            assert!(Calls::parse(bad).unwrap_err().contains(bad), "{bad}");
        }
    }
}
