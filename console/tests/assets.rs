//! The files of the pages: small, without markup made of data, and with a sentence for every key.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Bytes of a view with all that it loads.
const LIMIT: usize = 150 * 1024;
/// What every view loads before its own modules.
const SHARED: [&str; 6] = ["console.html", "console.css", "views.css", "icon.svg", "main.js", "zh-Hans.json"];
const VIEWS: [&str; 9] = [
    "map.js",
    "orders.js",
    "order.js",
    "traces.js",
    "trace.js",
    "logs.js",
    "messages.js",
    "numbers.js",
    "lab.js",
];

fn files() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files
        .map(|file| {
            (file.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&file).unwrap())
        })
        .collect()
}

/// What stands between `open` and the next `close`, everywhere in `text`.
fn between<'a>(text: &'a str, open: &str, close: char) -> Vec<&'a str> {
    text.split(open).skip(1).filter_map(|rest| rest.split(close).next()).collect()
}

#[test]
fn every_view_with_all_that_it_loads_is_small() {
    let files = files();
    for view in VIEWS {
        let (mut size, mut seen) = (0, BTreeSet::new());
        let mut waiting: Vec<&str> = SHARED.iter().copied().chain([view]).collect();
        while let Some(name) = waiting.pop() {
            if seen.insert(name) {
                let text = &files[name];
                size += text.len();
                waiting.extend(between(text, "from './", '\''));
            }
        }
        println!("{view}: {size} bytes in {} files", seen.len());
        assert!(seen.len() > 15 && size < LIMIT, "{view}: {size} bytes");
    }
}

#[test]
fn no_script_makes_markup_or_code_of_data_and_none_keeps_anything() {
    for (name, text) in files().iter().filter(|(name, _)| name.ends_with(".js")) {
        for never in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "DOMParser",
            "srcdoc",
            "Storage.",
        ] {
            assert!(!text.contains(never), "{name}: {never}");
        }
        let lines = text.lines().count();
        assert!(lines <= 150, "{name}: {lines} lines");
    }
}

#[test]
fn every_sentence_that_a_script_names_is_in_the_texts_and_none_is_unused() {
    let files = files();
    let texts: BTreeMap<String, String> = serde_json::from_str(&files["en.json"]).unwrap();
    let scripts = files.iter().filter(|(name, _)| name.ends_with(".js"));
    let all: String = scripts.map(|(_, text)| text.as_str()).collect();
    for key in between(&all, "text('", '\'') {
        assert!(texts.contains_key(key), "{key} has no sentence");
    }
    // Keys that a script puts together begin so.
    let made: BTreeSet<_> = ["text(`", "word('"]
        .iter()
        .flat_map(|open| between(&all, open, if open.ends_with('`') { '$' } else { '\'' }))
        .map(|prefix| format!("{}.", prefix.trim_end_matches('.')))
        .collect();
    for key in texts.keys() {
        let is_made = made.iter().any(|prefix| key.starts_with(prefix.as_str()));
        assert!(is_made || all.contains(&format!("'{key}'")), "{key} is unused");
    }
}
