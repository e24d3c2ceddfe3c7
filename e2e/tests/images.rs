//! deploy/images.md lists every image with its end of life, and none is used past it without an exception.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

use serde_yaml_ng::Value;

const TABLE: &str = "deploy/images.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// The files in `folder` whose names begin with `prefix`.
fn files(folder: &str, prefix: &str) -> Vec<String> {
    let entries = read_dir(root().join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(prefix)).map(|name| format!("{folder}/{name}")).collect()
}

struct Table {
    /// Such as `2026-11-29`: dates in this form are compared as text.
    checked_on: String,
    /// The end of support of each image. `None` if no end is announced.
    ends: BTreeMap<String, Option<String>>,
    exceptions: BTreeSet<String>,
}

impl Table {
    fn read(text: &str) -> Self {
        let checked_on = text.split_once("\nChecked on ").unwrap().1;
        let (ends, exceptions) = text.split_once("## Exceptions").unwrap();
        let end = |row: Vec<&str>| {
            assert!(row[2].contains("https://"), "no source: {row:?}");
            (row[0].to_owned(), (row[1] != "not announced").then(|| date(row[1])))
        };
        Self {
            checked_on: date(checked_on),
            ends: rows(ends).map(end).collect(),
            exceptions: rows(exceptions).map(|row| row[0].to_owned()).collect(),
        }
    }

    fn problems(&self, used: &BTreeSet<(String, String)>) -> Vec<String> {
        let mut problems = Vec::new();
        for (place, image) in used {
            match self.ends.get(image) {
                None => problems.push(format!("{place}: {image} is not in {TABLE}")),
                Some(Some(end)) if self.has_ended(end) && !self.exceptions.contains(image) => {
                    problems.push(format!("{place}: {image} has ended on {end}"));
                }
                Some(_) => {}
            }
        }
        for image in self.ends.keys().filter(|image| !used.iter().any(|(_, used)| used == *image)) {
            problems.push(format!("{TABLE}: nothing uses {image}"));
        }
        let needed = |image: &String| matches!(self.ends.get(image), Some(Some(end)) if self.has_ended(end));
        for image in self.exceptions.iter().filter(|image| !needed(image)) {
            problems.push(format!("{TABLE}: {image} needs no exception"));
        }
        problems
    }

    fn has_ended(&self, end: &str) -> bool {
        end < self.checked_on.as_str()
    }
}

/// The cells of the rows that begin with an image.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
}

/// The date at the begin of `text`.
fn date(text: &str) -> String {
    let date = text.get(..10).unwrap_or(text);
    let is_date = date.len() == 10
        && date.char_indices().all(|(at, letter)| match at {
            4 | 7 => letter == '-',
            _ => letter.is_ascii_digit(),
        });
    assert!(is_date, "not a date: {date}");
    date.to_owned()
}

/// The images of the services in a file for docker compose.
fn images_of_compose(text: &str) -> Vec<String> {
    let mut compose: Value = serde_yaml_ng::from_str(text).unwrap();
    compose.apply_merge().unwrap();
    let services = compose["services"].as_mapping().unwrap().values();
    services.filter_map(|service| Some(service["image"].as_str()?.to_owned())).collect()
}

/// The images that the stages of a Dockerfile begin with.
fn images_of_dockerfile(text: &str) -> Vec<String> {
    let mut stages = BTreeSet::new();
    let mut images = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("FROM ")) {
        let words: Vec<_> = line.split_whitespace().collect();
        if !stages.contains(words[1]) {
            images.push(words[1].to_owned());
        }
        stages.extend(words.get(3).copied());
    }
    images
}

/// The images that a script starts or looks for, and every tag of a repository in `known`.
fn images_of_script(text: &str, known: &BTreeSet<&str>) -> Vec<String> {
    let mut images = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let words: Vec<_> = line.split_whitespace().map(|word| word.trim_matches([';', ')'])).collect();
        for (index, word) in words.iter().enumerate() {
            let is_named = index > 0 && ["serve", "is_here"].contains(&words[index - 1]);
            let is_known = word.split_once(':').is_some_and(|(name, _)| known.contains(name));
            if is_known || is_named && !word.starts_with(['"', '$', '-']) {
                images.push((*word).to_owned());
            }
        }
    }
    images
}

#[test]
fn no_image_is_used_past_its_end_of_life() {
    let table = Table::read(&text(TABLE));
    let known = table.ends.keys().filter_map(|image| Some(image.split_once(':')?.0)).collect();
    let mut used = BTreeSet::new();
    let mut add = |place: String, images: Vec<String>| {
        used.extend(images.into_iter().map(|image| (place.clone(), image)));
    };
    for place in files("deploy", "compose.").into_iter().chain(["docker-compose.yml".to_owned()]) {
        let images = images_of_compose(&text(&place));
        add(place, images);
    }
    add("Dockerfile".to_owned(), images_of_dockerfile(&text("Dockerfile")));
    for place in files("scripts", "").into_iter().chain([".ci/run".to_owned()]) {
        let images = images_of_script(&text(&place), &known);
        add(place, images);
    }
    for place in
        ["docker-compose.yml", "Dockerfile", "scripts/servers.sh", "deploy/compose.observability.yml"]
    {
        assert!(used.iter().any(|(found, _)| found == place), "{place} names no image");
    }
    let problems = table.problems(&used);
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn an_unknown_or_ended_image_is_named_with_its_place() {
    let table = Table::read(
        "# Images\n\nChecked on 2026-06-01.\n\n| image | end | source |\n|---|---|---|\n\
         | `a:1` | 2026-05-31 | https://a |\n| `b:1` | 2026-05-31 | https://b |\n\
         | `c:1` | 2026-06-01 | https://c |\n| `d:1` | not announced | https://d |\n| `e:1` | 2030-01-01 | https://e |\n\
         ## Exceptions\n\n| image | next | why |\n|---|---|---|\n| `b:1` | `b:2` | … |\n| `c:1` | `c:2` | … |\n",
    );
    let compose = "services: { one: { image: 'a:1' }, two: { build: . }, three: { image: 'b:1' } }";
    let dockerfile = "FROM c:1 AS one\nFROM one AS two\nFROM unknown AS three\n";
    let script =
        "# serve x:1\nserve() {\n  if is_here y:1; then serve \"$image\" --; fi\n  docker run d:2)\n";
    let used = [
        ("compose", images_of_compose(compose)),
        ("Dockerfile", images_of_dockerfile(dockerfile)),
        ("script", images_of_script(script, &BTreeSet::from(["d"]))),
    ];
    let used =
        used.into_iter().flat_map(|(place, images)| images.into_iter().map(|one| (place.to_owned(), one)));
    assert_eq!(
        table.problems(&used.collect()),
        [
            "Dockerfile: unknown is not in deploy/images.md",
            "compose: a:1 has ended on 2026-05-31",
            "script: d:2 is not in deploy/images.md",
            "script: y:1 is not in deploy/images.md",
            "deploy/images.md: nothing uses d:1",
            "deploy/images.md: nothing uses e:1",
            "deploy/images.md: c:1 needs no exception",
        ]
    );
}
