//! The rules of the architecture, as far as a program can check them. Each failure names the file.

#![allow(clippy::unwrap_used, reason = "a test")]

mod architecture {
    pub(crate) mod cycles; // between the modules of a crate
}

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use architecture::cycles::{Crate, code};

/// The modules of a service, in the order of `lib.rs`. A missing module means "does not do this".
const MODULES: [&str; 12] = [
    "config", "app", "routes", "views", "domain", "checkout", "store", "messages", "clients", "tasks",
    "error", "metrics",
];

/// What only one service has.
const MORE_MODULES: [(&str, &str); 3] =
    [("user-service", "passwords"), ("user-service", "tokens"), ("payment-service", "card_network")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// A file's name from the root.
fn name(file: &Path) -> String {
    file.strip_prefix(root()).unwrap().display().to_string()
}

/// The crates of the workspace: every folder of the root with a manifest. The list in the root's Cargo.toml has
/// a pattern for the services.
fn members() -> Vec<String> {
    let folders = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let crates = folders.filter(|folder| folder.join("Cargo.toml").is_file());
    let mut members: Vec<_> = crates.map(|folder| name(&folder)).collect();
    members.sort();
    members
}

/// The services in programs.txt, and the template of new ones.
fn services() -> Vec<String> {
    let is_service = |member: &String| {
        member == "template-service" || xtask::services().any(|program| program.package == member.as_str())
    };
    let services: Vec<_> = members().into_iter().filter(is_service).collect();
    assert!(services.len() > 4, "{services:?}");
    services
}

/// The services with a database.
fn services_with_store() -> Vec<String> {
    let has_database = |service: &String| {
        let program = xtask::programs().iter().find(|program| program.package == service.as_str());
        program.is_none_or(|program| program.database.is_some())
    };
    services().into_iter().filter(has_database).collect()
}

/// Every file at or below `path`.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flat_map(|entry| files(&entry.unwrap().path())).collect()
}

/// Every Rust file at or below `path`.
fn sources(path: &Path) -> Vec<PathBuf> {
    files(path)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The sources of a service, without those of another program in its crate.
fn sources_of(service: &str) -> Vec<PathBuf> {
    let files = sources(&root().join(service).join("src"));
    files.into_iter().filter(|file| !name(file).contains("card_network/")).collect()
}

/// The lines of `files` that hold one of `words`: `file:line: text`. Strings, comments and tests do not count.
fn lines_with(files: &[PathBuf], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in code(file).lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", name(file), number + 1, line.trim()));
            }
        }
    }
    found
}

fn assert_none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn no_module_uses_a_sibling_that_uses_it() {
    let mut cycles = Vec::new();
    for member in members() {
        let src = root().join(member).join("src");
        let programs = sources(&src.join("bin")).into_iter().filter(|file| {
            file.parent() == Some(&src.join("bin")) || file.file_name().is_some_and(|name| name == "main.rs")
        });
        let roots = [src.join("lib.rs"), src.join("main.rs")].into_iter().chain(programs);
        for file in roots.filter(|file| file.is_file()) {
            cycles.extend(Crate::read(&file).cycles());
        }
    }
    let cycles: Vec<_> =
        cycles.iter().map(|cycle| cycle.replace(&format!("{}/", root().display()), "")).collect();
    assert_none("modules in a cycle", &cycles);
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
    for service in services() {
        let krate = service.replace('-', "_");
        let text = main(&service, &krate, &format!("{service}/src/main.rs"));
        let text = text.replace("CRATE", "X").replace("PROGRAM", "X");
        assert_eq!(text, gateway, "{service}");
    }
}

#[test]
fn no_service_depends_on_another() {
    let services = services();
    for member in services.iter().map(String::as_str).chain(["gateway", "shared"]) {
        let manifest = text(&format!("{member}/Cargo.toml")).parse::<toml::Table>().unwrap();
        let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
        for dependencies in kinds.iter().filter_map(|kind| manifest.get(*kind)?.as_table()) {
            for other in services.iter().map(String::as_str).chain(["gateway"]) {
                assert!(!dependencies.contains_key(other), "{member}/Cargo.toml: depends on {other}");
            }
        }
    }
}

#[test]
fn every_service_has_the_same_modules_in_the_same_order() {
    for service in services() {
        let lib = format!("{service}/src/lib.rs");
        let text = text(&lib);
        let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.split(';').next());
        let own = |module: &&str| MORE_MODULES.contains(&(service.as_str(), *module));
        let modules: Vec<&str> = modules.filter(|module| !own(module)).collect();
        for module in &modules {
            assert!(
                MODULES.contains(module),
                "{lib}: {module} is not one of the modules that a service may have"
            );
        }
        let in_order: Vec<&str> = MODULES.into_iter().filter(|module| modules.contains(module)).collect();
        assert_eq!(modules, in_order, "{lib}: the order of the modules");
        for file in sources_of(&service) {
            let path = file.strip_prefix(root().join(&service).join("src")).unwrap();
            let module = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
            let is_known =
                modules.contains(&module) || own(&module) || ["lib", "main", "bin"].contains(&module);
            assert!(is_known, "{}: not in {lib}", name(&file));
        }
    }
}

#[test]
fn a_use_case_is_a_file_with_a_handler_of_the_same_name() {
    for service in services() {
        let routes = root().join(&service).join("src/routes.rs");
        let code = code(&routes);
        let (_, list) =
            code.split_once("routes! {").unwrap_or_else(|| panic!("{}: no routes!", name(&routes)));
        let list = list.split('}').next().unwrap();
        let handlers = list.split([',', ';']).filter_map(|part| part.rsplit(':').next());
        for handler in handlers.map(str::trim).filter(|handler| !handler.is_empty()) {
            let path = format!("{service}/src/routes/{handler}.rs");
            assert!(handler.contains('_'), "{}: {handler} is not called verb_noun", name(&routes));
            assert!(text(&path).contains(&format!("async fn {handler}(")), "{path}: no fn {handler}");
        }
        let outside: Vec<_> =
            sources_of(&service).into_iter().filter(|file| !name(file).contains("/routes/")).collect();
        let rule = format!("{service}: path and method are declared over a handler in routes/");
        assert_none(&rule, &lines_with(&outside, &["utoipa::path"]));
    }
}

#[test]
fn the_chassis_commits() {
    for service in services() {
        let rule = format!("{service}: transactions are begun and committed by shared");
        assert_none(&rule, &lines_with(&sources_of(&service), &[".begin(", ".commit("]));
    }
}

#[test]
fn a_method_of_a_store_that_writes_takes_a_transaction() {
    for service in services() {
        let src = root().join(&service).join("src");
        for file in [sources(&src.join("store.rs")), sources(&src.join("store"))].concat() {
            let text = fs::read_to_string(&file).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            for method in text.split("async fn ").skip(1) {
                let (signature, body) = method.split_once('{').unwrap();
                let writes = ["INSERT INTO", "DELETE FROM"].iter().any(|word| body.contains(word))
                    || body.replace("FOR UPDATE", "").replace("DO UPDATE", "").contains("UPDATE ");
                let called = signature.split('(').next().unwrap();
                assert!(
                    !writes || signature.contains("&mut Tx"),
                    "{}: {called} writes without Tx",
                    name(&file)
                );
            }
        }
    }
}

#[test]
fn a_service_names_itself_and_its_errors_in_one_place() {
    for service in services() {
        let config = format!("{service}/src/config.rs");
        let constant = "pub const SERVICE: &str = env!(\"CARGO_PKG_NAME\");";
        assert!(text(&config).contains(constant), "{config}: without {constant}");
        let error = format!("{service}/src/error.rs");
        assert!(text(&error).contains("pub enum Error {"), "{error}: without enum Error");
        let files = sources_of(&service);
        let not_here = |file: &&PathBuf| ![&config, &error].contains(&&name(file));
        let others: Vec<_> = files.iter().filter(not_here).cloned().collect();
        let rule = format!("{service}: SERVICE stands in config.rs, Error in error.rs");
        assert_none(&rule, &lines_with(&others, &["const SERVICE", "enum Error"]));
    }
}

#[test]
fn migrations_are_where_the_store_is_and_the_same_for_both_databases() {
    for service in services_with_store() {
        let store = format!("{service}/src/store.rs");
        assert!(text(&store).contains("pub fn migrations()"), "{store}: without fn migrations");
        let names = |database: &str| {
            let folder = root().join(&service).join("migrations").join(database);
            let files = fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", name(&folder)));
            let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("sqlite"), names("postgres"), "{service}/migrations");
    }
}

#[test]
fn background_work_is_started_in_the_app_and_stands_in_tasks() {
    for service in services() {
        let app = format!("{service}/src/app.rs");
        let files: Vec<_> = sources_of(&service).into_iter().filter(|file| name(file) != app).collect();
        let rule = format!("{service}: background work is started in app.rs");
        assert_none(&rule, &lines_with(&files, &[".task(", "spawn("]));
        let started = text(&app);
        for task in sources(&root().join(&service).join("src/tasks")) {
            let called = task.file_stem().unwrap().to_str().unwrap();
            assert!(started.contains(called), "{app}: does not start {}", name(&task));
        }
    }
}

#[test]
fn outcomes_have_names() {
    for service in services() {
        let rule = format!("{service}: an enum says what an Option of these means");
        assert_none(&rule, &lines_with(&sources_of(&service), &["Option<Option<", "Option<Result<"]));
    }
}

#[test]
fn domains_know_neither_http_nor_databases_nor_json() {
    for service in services() {
        let src = root().join(&service).join("src");
        let mut files = sources(&src.join("domain.rs"));
        files.extend(sources(&src.join("domain")));
        files.extend(sources(&src.join("checkout.rs")));
        files.extend(sources(&src.join("checkout")));
        assert!(!files.is_empty(), "{service}: no domain");
        let outside = ["actix", "sqlx", "awc", "shared::db", "shared::problem", "async fn"];
        let wire = ["Serialize", "ToSchema", "utoipa"];
        assert_none(
            &format!("{service}: not in a domain"),
            &lines_with(&files, &[&outside[..], &wire].concat()),
        );
    }
}

#[test]
fn the_chassis_names_no_business_and_no_service() {
    // Words with a second meaning: "order" is a sequence, "users" are those of user tokens.
    let business = ["payment", "product", "checkout", "refund", "customer", "invoice", "basket", "warehouse"];
    for file in sources(&root().join("shared/src")) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let place = format!("{}:{}: {line}", name(&file), number + 1);
            for service in services() {
                assert!(!line.contains(&service), "{place}");
            }
            // Documentation may give examples.
            if line.trim_start().starts_with("//") {
                continue;
            }
            for word in business {
                assert!(!line.to_lowercase().contains(word), "{place}");
            }
        }
    }
}

/// The statements of a migration that takes something away, unless it says since when nobody uses that.
fn unexplained_removals(migration: &str) -> Vec<&str> {
    if migration.contains("-- Unused since ") {
        return Vec::new();
    }
    let statements = migration.lines().filter(|line| !line.trim_start().starts_with("--"));
    let removes = [
        "DROP TABLE",
        "DROP COLUMN",
        "DROP INDEX",
        "RENAME ",
        "SET NOT NULL",
        "ADD CONSTRAINT",
        "ALTER TYPE",
    ];
    statements.filter(|line| removes.iter().any(|one| line.to_uppercase().contains(one))).collect()
}

#[test]
fn a_migration_that_takes_something_away_says_since_when_nobody_uses_it() {
    let mut found = Vec::new();
    for member in members() {
        for file in files(&root().join(member).join("migrations")) {
            let migration = fs::read_to_string(&file).unwrap();
            let removals = unexplained_removals(&migration);
            found.extend(removals.iter().map(|statement| format!("{}: {statement}", name(&file))));
        }
    }
    assert_none("expand and contract: what the version before may use is taken away", &found);

    let drop = "ALTER TABLE things DROP COLUMN name;";
    assert_eq!(unexplained_removals(drop), [drop]);
    assert!(unexplained_removals(&format!("-- Unused since version 2.\n{drop}")).is_empty());
    assert!(unexplained_removals("-- No DROP TABLE here.\nCREATE TABLE things (id uuid);").is_empty());
}

/// Tables that a migration for PostgreSQL locks. It locks those that it makes, too, but nobody waits for these.
fn locked_tables(migration: &str) -> BTreeSet<String> {
    let lines = migration.lines().filter(|line| !line.trim_start().starts_with("--"));
    let sql = lines.collect::<Vec<_>>().join(" ");
    let (mut locked, mut made) = (BTreeSet::new(), BTreeSet::new());
    for statement in sql.split(';') {
        let statement = statement.replace('(', " ( ");
        let words: Vec<_> = statement
            .split_whitespace()
            .filter(|word| !["IF", "NOT", "EXISTS", "ONLY"].contains(word))
            .collect();
        let after = |word: &str| {
            let at = words.iter().position(|one| one.eq_ignore_ascii_case(word));
            at.and_then(|at| words.get(at + 1)).map(|table| (*table).to_owned())
        };
        match words.as_slice() {
            ["CREATE", "TABLE", table, ..] => {
                made.insert((*table).to_owned());
                locked.extend(after("REFERENCES"));
            }
            ["ALTER" | "DROP", "TABLE", table, ..] | ["UPDATE", table, ..] => {
                locked.insert((*table).to_owned());
                locked.extend(after("REFERENCES"));
            }
            ["DELETE", "FROM", table, ..] => {
                locked.insert((*table).to_owned());
            }
            ["CREATE", "INDEX" | "TRIGGER" | "UNIQUE", ..] | ["DROP", "TRIGGER", ..] => {
                locked.extend(after("ON"))
            }
            _ => {}
        }
    }
    &locked - &made
}

/// Committed before the rule; a committed migration never changes.
const LOCK_TWO_TABLES: [&str; 2] =
    ["shared/0002_unsent_and_dead_letters.sql", "user-service/0002_refresh_families.sql"];

#[test]
fn a_migration_for_postgresql_locks_one_table() {
    let mut found = Vec::new();
    for member in members() {
        for file in files(&root().join(&member).join("migrations/postgres")) {
            let (tables, file) = (locked_tables(&fs::read_to_string(&file).unwrap()), name(&file));
            let migration = format!("{}/{}", member, file.rsplit('/').next().unwrap());
            if tables.len() > 1 && !LOCK_TWO_TABLES.contains(&migration.as_str()) {
                found.push(format!("{file}: {tables:?}"));
            }
        }
    }
    assert_none("lock_timeout counts for each lock anew, and the first lock is held meanwhile", &found);

    let both = "ALTER TABLE a ADD COLUMN b text;\n-- ALTER TABLE no\nCREATE UNIQUE INDEX c ON d(e);";
    assert_eq!(locked_tables(both), ["a".to_owned(), "d".to_owned()].into());
    let new = "CREATE TABLE a (b bigint REFERENCES c (id));\nCREATE INDEX d ON a (b);\nUPDATE c SET id = 1;";
    assert_eq!(locked_tables(new), ["c".to_owned()].into());
}

/// The names of fields in the log calls of a file: `log::level!(fields; "message")`. Strings do not count.
fn log_fields(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for call in code.split("log::").skip(1) {
        let levels = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
        let Some(call) = levels.iter().find_map(|level| call.strip_prefix(level)) else { continue };
        let nesting = |letter| i32::from("([{".contains(letter)) - i32::from(")]}".contains(letter));
        let mut depth = 0;
        let end = call.find(|letter: char| {
            depth += nesting(letter);
            depth < 0 || letter == ';' && depth == 0
        });
        let Some(end) = end.filter(|end| call[*end..].starts_with(';')) else { continue };
        let mut depth = 0;
        let fields = call[..end].split(|letter: char| {
            depth += nesting(letter);
            letter == ',' && depth == 0
        });
        let names = fields.map(|field| field.split([':', '=']).next().unwrap_or_default().trim().to_owned());
        found.extend(names.filter(|name| !name.is_empty() && name != "target"));
    }
    found
}

#[test]
fn log_calls_use_only_the_names_of_fields_that_docs_telemetry_lists() {
    let documented = text("docs/telemetry.md");
    let table = documented.split("## Log lines").nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split(" |").next());
    let known: BTreeSet<_> = names.flat_map(|names| names.split([',', ' ', '`'])).collect();
    let mut used = BTreeSet::new();
    for member in members().iter().filter(|member| !["bench", "e2e", "xtask"].contains(&member.as_str())) {
        for file in sources(&root().join(member).join("src")) {
            for field in log_fields(&code(&file)) {
                assert!(
                    known.contains(field.as_str()),
                    "{}: {field} is not in docs/telemetry.md",
                    name(&file)
                );
                used.insert(field);
            }
        }
    }
    assert!(used.len() > 20, "the calls are found: {used:?}");
}

/// The words in backticks that look like the name of a test: they have five or more parts.
fn test_names(document: &str) -> Vec<&str> {
    let is_part = |part: &str| part.chars().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit());
    let is_name = |word: &&str| word.split('_').count() >= 5 && word.split('_').all(is_part);
    document.split('`').skip(1).step_by(2).filter(is_name).collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    assert_eq!(test_names("`a_b_c_d_e`, `a_b`, a_b_c_d_f"), ["a_b_c_d_e"]);
    let members = members();
    let code: String = members
        .iter()
        .flat_map(|member| sources(&root().join(member)))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let readmes = members.iter().map(|member| format!("{member}/README.md"));
    let documents =
        readmes.chain(["docs", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(String::from));
    let mut missing = Vec::new();
    for file in documents.flat_map(|path| files(&root().join(path))) {
        let Ok(document) = fs::read_to_string(&file) else { continue };
        let names = test_names(&document).into_iter();
        let names = names.filter(|test| !code.contains(&format!("fn {test}(")));
        missing.extend(names.map(|test| format!("{}: {test}", name(&file))));
    }
    assert_none("the documents name tests that do not exist", &missing);
}
