//! The rules of the architecture, as far as a program can check them.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

const SERVICES: [&str; 3] = ["user-service", "order-service", "payment-service"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// Every Rust file at or below `path`.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let files = entries.flat_map(|entry| sources(&entry.unwrap().path()));
    files.filter(|file| file.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn every_program_begins_with_the_same_dozen_lines() {
    let main = |program: &str, krate: &str, path: &str| {
        let text = text(path);
        assert!(text.lines().count() <= 12, "{path}");
        text.replace(program, "PROGRAM").replace(krate, "CRATE")
    };
    let gateway = main("gateway program", "gateway", "gateway/src/main.rs")
        .replace("CRATE", "X")
        .replace("PROGRAM", "X program");
    for service in SERVICES {
        let krate = service.replace('-', "_");
        let text = main(service, &krate, &format!("{service}/src/main.rs"));
        let text = text.replace("CRATE", "X").replace("PROGRAM", "X");
        assert_eq!(text, gateway, "{service}");
    }
}

#[test]
fn no_service_depends_on_another() {
    for service in SERVICES.iter().chain(&["gateway", "shared"]) {
        let manifest = text(&format!("{service}/Cargo.toml"));
        let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
        for other in SERVICES.iter().chain(&["gateway"]) {
            assert!(
                !dependencies.lines().any(|line| line.starts_with(other)),
                "{service} depends on {other}"
            );
        }
    }
}

#[test]
fn domains_know_neither_http_nor_databases() {
    for service in SERVICES {
        let src = root().join(service).join("src");
        let mut files = sources(&src.join("domain.rs"));
        files.extend(sources(&src.join("domain")));
        files.extend(sources(&src.join("checkout")));
        assert!(!files.is_empty(), "{service}");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for outside in ["actix", "sqlx", "awc", "shared::db", "shared::problem", "async fn"] {
                assert!(!text.contains(outside), "{}: {outside}", file.display());
            }
        }
    }
}

#[test]
fn the_chassis_names_no_business() {
    // Words with a second meaning: "order" is a sequence, "users" are those of user tokens.
    let business = ["payment", "product", "checkout", "refund", "customer", "invoice", "basket", "warehouse"];
    for file in sources(&root().join("shared/src")) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            // Documentation may give examples.
            if line.trim_start().starts_with("//") {
                continue;
            }
            for word in business {
                assert!(!line.to_lowercase().contains(word), "{}:{}: {line}", file.display(), number + 1);
            }
        }
    }
}
