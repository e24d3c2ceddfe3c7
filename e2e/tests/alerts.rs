//! Every alert has a page that says what to do, and made-up series in which it fires.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use shared::testing::skip;

/// The sections of each page, in this order.
const SECTIONS: [&str; 4] = ["## What it means", "## Look first", "## Do", "## Over when"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&text(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

struct Alert {
    name: String,
    severity: String,
    runbook: String,
}

fn alerts() -> Vec<Alert> {
    let rules = yaml("deploy/prometheus/alerts.yml");
    let groups = rules["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let field = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rules
        .filter(|rule| rule["alert"].is_string())
        .map(|rule| Alert {
            name: field(&rule["alert"]),
            severity: field(&rule["labels"]["severity"]),
            runbook: field(&rule["annotations"]["runbook_url"]),
        })
        .collect()
}

#[test]
fn every_alert_has_a_page_and_every_page_an_alert() {
    let mut pages: BTreeSet<_> = read_dir(root().join("docs/runbooks"))
        .unwrap()
        .map(|entry| format!("docs/runbooks/{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    assert!(pages.remove("docs/runbooks/README.md"));
    let alerts = alerts();
    for Alert { name, severity, runbook } in &alerts {
        assert_eq!(*runbook, format!("docs/runbooks/{name}.md"));
        assert!(["page", "ticket"].contains(&severity.as_str()), "{name}: severity {severity:?}");
    }
    let wanted: BTreeSet<_> = alerts.into_iter().map(|alert| alert.runbook).collect();
    assert_eq!(pages, wanted);

    let index = text("docs/runbooks/README.md");
    for page in &pages {
        let (name, text) = (page.rsplit('/').next().unwrap(), text(page));
        assert!(text.starts_with(&format!("# {}\n", name.trim_end_matches(".md"))), "{page}: its title");
        assert!(text.lines().count() <= 40, "{page} has {} lines", text.lines().count());
        let sections: Vec<_> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(sections, SECTIONS, "{page}");
        assert!(index.contains(&format!("]({name})")), "README.md has no link to {name}");
        for script in text.split("scripts/").skip(1) {
            let script = script.split(|letter: char| !letter.is_ascii_lowercase() && letter != '-').next();
            assert!(root().join("scripts").join(script.unwrap()).is_file(), "{page}: scripts/{script:?}");
        }
    }
}

#[test]
fn every_alert_fires_in_a_test() {
    let tests = text("deploy/prometheus/tests.yml");
    for Alert { name, severity, .. } in alerts() {
        let expected = format!("{{alertname=\"{name}\",severity=\"{severity}\"}}");
        assert!(tests.contains(&expected), "tests.yml: {name} never fires as a {severity}");
    }
}

#[test]
fn the_alerts_fire_and_end_as_their_tests_say() {
    let compose = yaml("docker-compose.yml");
    let image = compose["services"]["prometheus"]["image"].as_str().unwrap();
    let found = Command::new("docker").args(["image", "inspect", image]).output();
    if !found.is_ok_and(|found| found.status.success()) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "Docker does not have {image}");
        return skip(&format!("with promtool: Docker does not have {image}"));
    }
    let folder = root().join("deploy/prometheus").canonicalize().unwrap();
    let mount = format!("{}:/rules:ro", folder.display());
    let tested = Command::new("docker")
        .args(["run", "--rm", "--network", "none", "--volume", &mount, "--entrypoint", "promtool", image])
        .args(["test", "rules", "/rules/tests.yml"])
        .output()
        .unwrap();
    let printed = [tested.stdout, tested.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(tested.status.success(), "{}", printed.concat());
}
