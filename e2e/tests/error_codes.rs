//! docs/errors.md lists the code of every error that any program can answer. The compiler sees to it that `codes!`
//! declares each of them.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A code, its status, and who answers it.
type Row = (String, String, String);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every Rust file below the folder `src` of a crate, with its path from the root and its text.
fn sources() -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            let is_source = name.contains("/src/") || name.ends_with("/src");
            if path.is_dir() && (is_source || path.join("src").is_dir()) {
                folders.push(path);
            } else if is_source && name.ends_with(".rs") {
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

/// The rows of docs/errors.md, in which "all" are the gateway and the services.
fn listed() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let mut cells = row.split(" | ").map(|cell| cell.trim_end_matches('`').to_owned());
        (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap())
    })
    .collect()
}

/// Every code that a source declares.
fn declared(sources: &[(String, String)]) -> Vec<Row> {
    let mut declared = Vec::new();
    for (file, text) in sources {
        let krate = file.split('/').next().unwrap();
        let who = match krate {
            "shared" => "all",
            _ if file.contains("/card_network/") => "card-network",
            _ => krate,
        };
        for line in
            text.split("codes! {\n").skip(1).flat_map(|rest| rest.split("\n}").next().unwrap().lines())
        {
            let (status, code) = line.trim().split_once(' ').unwrap();
            let code = code.split('"').nth(1).unwrap();
            declared.push((code.to_owned(), status.to_owned(), who.to_owned()));
        }
    }
    declared
}

/// The codes that the descriptions of error responses name.
fn documented(sources: &[(String, String)]) -> BTreeSet<(String, String)> {
    let mut documented = BTreeSet::new();
    for response in sources.iter().flat_map(|(_, text)| text.split("(status = ").skip(1)) {
        let (status, description) = response.split(')').next().unwrap().split_at(3);
        let codes = description.split('`').skip(1).step_by(2).filter(|_| status.starts_with(['4', '5']));
        documented.extend(codes.map(|code| (code.to_owned(), status.to_owned())));
    }
    documented
}

#[test]
fn every_error_code_of_every_program_is_listed_and_every_listed_code_is_a_programs() {
    let sources = sources();
    let (listed, declared) = (listed(), declared(&sources));
    let missing: Vec<_> = declared.iter().filter(|code| !listed.contains(code)).collect();
    assert!(missing.is_empty(), "docs/errors.md does not list: {missing:?}");
    let unknown: Vec<_> = listed.iter().filter(|code| !declared.contains(code)).collect();
    assert!(unknown.is_empty(), "docs/errors.md lists, but no program answers: {unknown:?}");
    assert_eq!(listed.len(), declared.len(), "docs/errors.md lists a code twice, or two sources declare it");

    let made: Vec<_> = sources.iter().filter(|(_, text)| text.contains("Code::declared(")).collect();
    assert_eq!(made.len(), 1, "codes are made by the macro `codes!` alone");
    let documented = documented(&sources);
    let is_listed =
        |(code, status): &&(String, String)| listed.iter().any(|row| row.0 == *code && row.1 == *status);
    let unknown: Vec<_> = documented.iter().filter(|code| !is_listed(code)).collect();
    assert!(
        documented.len() > 10 && unknown.is_empty(),
        "OpenAPI names what docs/errors.md does not: {unknown:?}"
    );
}
