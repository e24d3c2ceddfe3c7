//! The entries of a service in the files that list services. All functions are from text to text: an
//! insertion and the removal after it give the text of before.

use std::ops::Range;

use super::names::Names;

pub(super) const PROGRAMS: &str = "programs.txt";
pub(super) const GATEWAY: &str = "gateway.toml";
pub(super) const COMPOSE: &str = "docker-compose.yml";
pub(super) const CHECKS: &str = "deploy/compose.checks.yml";
pub(super) const FILES: [&str; 4] = [PROGRAMS, GATEWAY, COMPOSE, CHECKS];

const REPLICAS: u16 = 2;

pub(super) struct Change {
    pub(super) file: &'static str,
    pub(super) before: String,
    pub(super) after: String,
}

/// Adds the entries of the service to the `text` of `file`.
pub(super) fn insert(file: &str, text: &str, names: &Names, port: u16) -> Result<String, String> {
    let (name, path) = (names.krate(), names.path());
    match file {
        PROGRAMS => {
            let (port, replicas) = (port.to_string(), REPLICAS.to_string());
            insert_row(text, [&name, &name, "service", &port, &replicas, &names.database(), "-", "-"])
        }
        GATEWAY => {
            let (id, prefix) = (format!("id = \"{path}\""), format!("prefix = \"/api/{path}\""));
            if text.lines().any(|line| line == id || line == prefix) {
                return Err(format!("the route /api/{path}, or its id, is taken"));
            }
            Ok(format!("{text}\n[[routes]]\n{id}\n{prefix}\nservice = \"{name}\"\n"))
        }
        COMPOSE => insert_into_compose(text, &name, port),
        _ => {
            let ports = format!("127.0.0.1:{port}-{}:{port}", port + 8);
            let networks = "networks: [private, operators]";
            insert_service(text, &format!("  {name}:\n    {networks}\n    ports: [\"{ports}\"]\n"))
        }
    }
}

/// The `text` of `file` without the entries of the service; without effect where it has none.
pub(super) fn remove(file: &str, text: &str, name: &str) -> String {
    match file {
        PROGRAMS => without(text, |line| line.split_whitespace().next() == Some(name)),
        GATEWAY => {
            let service = format!("service = \"{name}\"");
            let is_route = |paragraph: &&str| {
                paragraph.contains("[[routes]]") && paragraph.lines().any(|line| line == service)
            };
            let kept: Vec<_> =
                text.trim_end().split("\n\n").filter(|paragraph| !is_route(paragraph)).collect();
            kept.join("\n\n") + "\n"
        }
        _ => remove_from_yaml(text, name),
    }
}

/// Adds a row to programs.txt after the last service, in its columns as far as the values fit.
fn insert_row(text: &str, values: [&str; 8]) -> Result<String, String> {
    let mut lines = lines(text);
    let is_service =
        |line: &&str| !line.starts_with('#') && line.split_whitespace().nth(2) == Some("service");
    let at = lines.iter().rposition(is_service).ok_or("there is no service")?;
    let (last, mut row, mut start) = (lines[at], String::new(), 0);
    for (value, column) in values.iter().zip(last.split_whitespace()) {
        start += last[start..].find(column).unwrap_or_default();
        let width = if row.is_empty() { 0 } else { start.max(row.len() + 2) };
        row = format!("{row:width$}{value}");
        start += column.len();
    }
    row.push('\n');
    lines.insert(at + 1, &row);
    Ok(lines.concat())
}

fn insert_into_compose(text: &str, name: &str, port: u16) -> Result<String, String> {
    let is_mount = |line: &&str| line.starts_with("      - ") && line.contains("-service-secrets:/secrets/");
    let is_volume = |line: &&str| line.trim_end().ends_with("-service-secrets: {}");
    let mount = format!("      - {name}-secrets:/secrets/{name}\n");
    let volume = format!("  {name}-secrets: {{}}\n");
    let mut lines = lines(text);
    let at = lines.iter().rposition(is_volume).ok_or("there is no volume of a service")?;
    lines.insert(at + 1, &volume);
    let at = lines.iter().rposition(is_mount).ok_or("`secrets` mounts no volume of a service")?;
    lines.insert(at + 1, &mount);
    let entry = format!(
        "
  {name}:
    <<: *program
    build: {{ <<: *build, args: {{ PROGRAM: {name}, PACKAGE: {name}, PORT: {port} }} }}
    environment:
      <<: *environment
      DATABASE_URL_FILE: /secrets/database-url
      DATABASE_MIGRATIONS_URL_FILE: /secrets/migrations-url
    volumes: [\"{name}-secrets:/secrets:ro\", \"public-keys:/public-keys:ro\"]
    depends_on: *needs
    networks: [private]
    deploy: *replicas
"
    );
    insert_service(&lines.concat(), &entry)
}

/// Adds `entry` after the last service whose name ends like ours.
fn insert_service(text: &str, entry: &str) -> Result<String, String> {
    let is_service = |line: &&str| !line.starts_with("   ") && line.trim_end().ends_with("-service:");
    let mut lines = lines(text);
    let last = lines.iter().rposition(is_service).ok_or("there is no service to add it after")?;
    lines.insert(block(&lines, last).end, entry);
    Ok(lines.concat())
}

fn remove_from_yaml(text: &str, name: &str) -> String {
    let (header, mount, volume) = (
        format!("  {name}:"),
        format!("- {name}-secrets:/secrets/{name}"),
        format!("  {name}-secrets: {{}}"),
    );
    let mut lines = lines(text);
    if let Some(at) = lines.iter().position(|line| line.trim_end() == header) {
        let Range { start, end } = block(&lines, at);
        let blank_before = usize::from(start > 0 && lines[start - 1].trim().is_empty());
        lines.drain(start - blank_before..end);
    }
    without(&lines.concat(), |line| line.trim() == mount || line.trim_end() == volume)
}

/// The lines of the mapping entry that begins at line `at`: those that are indented deeper.
fn block(lines: &[&str], at: usize) -> Range<usize> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let inside = |line: &&&str| line.trim().is_empty() || indent(line) > indent(lines[at]);
    let mut end = at + 1 + lines[at + 1..].iter().take_while(inside).count();
    while lines[end - 1].trim().is_empty() {
        end -= 1;
    }
    at..end
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn without(text: &str, is_gone: impl Fn(&str) -> bool) -> String {
    text.split_inclusive('\n').filter(|line| !is_gone(line)).collect()
}

impl Change {
    /// Each place that changed: `file:line`, and its first line that is not blank. One text must be the other
    /// with more lines.
    pub(super) fn hunks(&self) -> Vec<(String, String)> {
        let grows = self.after.len() >= self.before.len();
        let (short, long) = if grows { (&self.before, &self.after) } else { (&self.after, &self.before) };
        let (short, long): (Vec<_>, Vec<_>) = (short.lines().collect(), long.lines().collect());
        let (mut hunks, mut at, mut is_inside) = (Vec::new(), 0, false);
        for (number, line) in long.iter().enumerate() {
            if short.get(at) == Some(line) {
                (at, is_inside) = (at + 1, false);
                continue;
            }
            if !is_inside && !line.is_empty() {
                hunks.push((format!("{}:{}", self.file, number + 1), line.trim().to_owned()));
                is_inside = true;
            }
        }
        hunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file as it is in this repository.
    fn text(file: &str) -> String {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        std::fs::read_to_string(format!("{root}/{file}")).unwrap()
    }

    fn changes(name: &str) -> Vec<Change> {
        let names = Names::parse(name, None).unwrap();
        let change = |file| {
            let before = text(file);
            Change { file, after: insert(file, &before, &names, 3991).unwrap(), before }
        };
        FILES.map(change).into()
    }

    #[test]
    fn an_insertion_and_a_removal_restore_every_file_byte_for_byte() {
        for name in ["parcels", "very-long-names-of-things"] {
            for Change { file, before, after } in changes(name) {
                assert_ne!(after, before, "{file}");
                assert_eq!(remove(file, &after, &format!("{name}-service")), before, "{file}");
                assert_eq!(remove(file, &before, &format!("{name}-service")), before, "{file}");
            }
        }
    }

    #[test]
    fn two_services_are_inserted_and_removed_in_any_order() {
        for file in FILES {
            let insert =
                |text: &str, name| insert(file, text, &Names::parse(name, None).unwrap(), 3991).unwrap();
            let (before, first) = (text(file), insert(&text(file), "parcels"));
            let both = insert(&first, "gifts");
            assert_eq!(remove(file, &both, "gifts-service"), first, "{file}");
            let other = remove(file, &both, "parcels-service");
            assert_eq!(other, insert(&before, "gifts"), "{file}");
            assert_eq!(remove(file, &other, "gifts-service"), before, "{file}");
        }
    }

    #[test]
    fn six_places_are_edited() {
        let hunks: Vec<_> = changes("parcels").iter().flat_map(Change::hunks).collect();
        let lines: Vec<_> = hunks.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(
            lines,
            [
                "parcels-service  parcels-service  service   3991  2         parcels   -         -",
                "[[routes]]",
                "parcels-service:",
                "- parcels-service-secrets:/secrets/parcels-service",
                "parcels-service-secrets: {}",
                "parcels-service:",
            ]
        );
    }

    #[test]
    fn a_route_that_exists_is_not_added_again() {
        let names = Names::parse("orders", None).unwrap();
        assert!(insert(GATEWAY, &text(GATEWAY), &names, 3991).unwrap_err().contains("/api/orders"));
    }

    #[test]
    fn every_route_and_every_setting_of_the_service_is_removed() {
        let routes = "a = 1\n\n[[routes]]\nid = \"a\"\nservice = \"a-service\"\n\n[[routes]]\nservice = \"b-service\"\n\n# More.\n[[routes]]\nservice = \"a-service\"\nx = 1\n";
        assert_eq!(remove(GATEWAY, routes, "a-service"), "a = 1\n\n[[routes]]\nservice = \"b-service\"\n");
        let compose = "services:\n  b-service:\n    x: 1\n\n  a-service:\n    x: 1\n\n    y:\n      z: 1\n\n  # Next.\n  c: {}\n";
        assert_eq!(
            remove(COMPOSE, compose, "a-service"),
            "services:\n  b-service:\n    x: 1\n\n  # Next.\n  c: {}\n"
        );
    }
}
