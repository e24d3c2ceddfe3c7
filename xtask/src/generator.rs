//! `new-service` and `remove-service`: a copy of template-service under another name, and its entries in the
//! files that list services.

mod edits;
mod names;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::{Kind, programs};
use edits::{Change, FILES};
use names::{Names, Prose};

const TEMPLATE: &str = "template-service";
const MANIFEST: &str = "Cargo.toml";

/// Makes the service NAME with the resource `/api/NAME`, and prints what it did and how to try it.
pub fn new_service(name: &str, singular: Option<&str>) -> io::Result<()> {
    let names = Names::parse(name, singular).map_err(io::Error::other)?;
    let krate = names.krate();
    if Path::new(&krate).exists() {
        return refuse(format!("{krate} exists already."));
    }
    let template = read_files(Path::new(TEMPLATE))?;
    if let Some(word) = names.clash(template.iter().map(|(_, text)| text.as_str())) {
        return refuse(format!("The template uses the name {word} itself: choose another, or --singular."));
    }
    let port = next_port();
    let changes = plan(|file, text| edits::insert(file, text, &names, port))?;

    let files = instantiate(&template, &names, port);
    let root = Path::new(".");
    if let Err(why) = write_files(root, &files).and_then(|()| format_files(root, &files)) {
        fs::remove_dir_all(&krate)?;
        return Err(why);
    }
    apply(&changes)?;
    update_lock_file()?;

    println!("{krate}/ is made of {TEMPLATE}/: {} files. The edits outside of it:\n", files.len());
    print_changes(&changes);
    println!("\nCargo has updated Cargo.lock. To test it: cargo test -p {krate}");
    println!("To try it, (re)start everything with scripts/up; then:\n");
    print_requests(&names);
    Ok(())
}

/// Removes the service NAME, unless that loses changes that are not committed and `force` is not given.
pub fn remove_service(name: &str, force: bool) -> io::Result<()> {
    let krate = names::krate(name);
    if krate == TEMPLATE || !Path::new(&krate).join("Cargo.toml").exists() {
        return refuse(format!("There is no service {krate} to remove."));
    }
    if let Some(manifest) = dependent(&krate)? {
        return refuse(format!("{manifest} names {krate} as a dependency: remove that first."));
    }
    if !force && !is_committed(&krate)? && !is_untouched(&krate)? {
        return refuse(format!("{krate} has changes that are not committed; --force loses them."));
    }
    let changes = plan(|file, text| Ok(edits::remove(file, text, &krate)))?;
    apply(&changes)?;
    fs::remove_dir_all(&krate)?;
    update_lock_file()?;

    println!("{krate}/ is removed, and:\n");
    print_changes(&changes);
    println!("\nCargo has updated Cargo.lock. Data and secrets are kept until scripts/down --wipe.");
    Ok(())
}

fn refuse<T>(why: String) -> io::Result<T> {
    Err(io::Error::other(why))
}

/// The first port of the ten after all that are taken.
fn next_port() -> u16 {
    let others = programs().iter().filter(|program| program.kind != Kind::Gateway);
    let last = others.map(|program| program.port + program.replicas - 1).max().unwrap_or(3000);
    (last / 10 + 1) * 10 + 1
}

/// Every change to the files that list services; nothing is written yet.
fn plan(edit: impl Fn(&str, &str) -> Result<String, String>) -> io::Result<Vec<Change>> {
    let mut changes = Vec::new();
    for file in FILES {
        let before = fs::read_to_string(file)?;
        let after = edit(file, &before).map_err(|why| io::Error::other(format!("{file}: {why}")))?;
        changes.push(Change { file, before, after });
    }
    Ok(changes)
}

fn apply(changes: &[Change]) -> io::Result<()> {
    changes.iter().try_for_each(|change| fs::write(change.file, &change.after))
}

fn print_changes(changes: &[Change]) {
    for (place, line) in changes.iter().flat_map(Change::hunks) {
        println!("  {place:<24} {line}");
    }
}

fn print_requests(names: &Names) {
    let url = "http://127.0.0.1:8080/api";
    let json = "-H 'content-type: application/json'";
    let login = r#""email":"ann@example.com","password":"correct horse""#;
    let (path, value) = (names.path(), "cargo run --profile quick --quiet -p xtask -- json");
    let token = r#"-H "authorization: Bearer $TOKEN""#;
    println!("  curl -sS -w '\\n' {url}/users {json} -d '{{{login},\"name\":\"Ann\"}}'");
    println!("  TOKEN=$(curl -sS {url}/sessions {json} -d '{{{login}}}' | {value} access_token)");
    println!(
        "  ID=$(curl -sS {url}/{path} {token} -H 'idempotency-key: 1' {json} -d '{{\"name\":\"First\"}}' | {value} id)"
    );
    println!("  curl -sS -w '\\n' {url}/{path}/$ID {token}");
}

/// The template's files under their new names, with their new text.
fn instantiate(template: &[(PathBuf, String)], names: &Names, port: u16) -> Vec<(PathBuf, String)> {
    let prose = |path: &Path| match path.extension().is_some_and(|extension| extension == "md") {
        true => Prose::All,
        false => Prose::Comments,
    };
    let made =
        |(path, text): &(PathBuf, String)| (names.path_of(path, port), names.apply(text, prose(path), port));
    template.iter().map(made).collect()
}

/// All files below `folder`, in order.
fn read_files(folder: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => files.extend(read_files(&path)?),
            false => files.push((path.clone(), fs::read_to_string(&path)?)),
        }
    }
    files.sort();
    Ok(files)
}

fn write_files(root: &Path, files: &[(PathBuf, String)]) -> io::Result<()> {
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Names of another length break lines at other places. Files are given one by one, because rustfmt does not
/// see the modules that `shared::routes!` declares.
fn format_files(root: &Path, files: &[(PathBuf, String)]) -> io::Result<()> {
    let manifest = fs::read_to_string(MANIFEST)?;
    let edition = manifest.lines().find_map(|line| line.strip_prefix("edition = ")).unwrap_or("2024");
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--edition", edition.trim_matches('"'), "--config-path", "rustfmt.toml"]);
    let sources =
        files.iter().map(|(path, _)| root.join(path)).filter(|path| path.extension() == Some("rs".as_ref()));
    run(rustfmt.args(sources))
}

/// Adds or removes the crate in Cargo.lock; the versions of all others stay.
fn update_lock_file() -> io::Result<()> {
    run(Command::new("cargo").args(["update", "--workspace", "--offline", "--quiet"]))
}

fn run(command: &mut Command) -> io::Result<()> {
    match command.status()?.success() {
        true => Ok(()),
        false => refuse(format!("{} failed.", command.get_program().display())),
    }
}

/// The first manifest that depends on the crate.
fn dependent(krate: &str) -> io::Result<Option<String>> {
    let mut manifests = vec![PathBuf::from(MANIFEST)];
    for entry in fs::read_dir(".")? {
        manifests.push(entry?.path().join(MANIFEST));
    }
    for manifest in manifests.into_iter().filter(|manifest| manifest.is_file()) {
        let text = fs::read_to_string(&manifest)?;
        let names =
            |line: &str| line.strip_prefix(krate).is_some_and(|rest| rest.starts_with([' ', '.', '=']));
        if text.lines().any(names) {
            return Ok(Some(manifest.to_string_lossy().trim_start_matches("./").to_owned()));
        }
    }
    Ok(None)
}

/// Whether git can restore every file of the crate.
fn is_committed(krate: &str) -> io::Result<bool> {
    let status = Command::new("git").args(["status", "--porcelain", "--", krate]).output()?;
    Ok(status.status.success() && status.stdout.is_empty())
}

/// Whether the crate is still what `new_service` made.
fn is_untouched(krate: &str) -> io::Result<bool> {
    let program = programs().iter().find(|program| program.name == krate);
    let (Ok(names), Some(program)) = (Names::parse(krate, None), program) else { return Ok(false) };
    let again = std::env::temp_dir().join(format!("new-service-{}", std::process::id()));
    let files = instantiate(&read_files(Path::new(TEMPLATE))?, &names, program.port);
    let made = write_files(&again, &files).and_then(|()| format_files(&again, &files));
    let made = made.and_then(|()| read_files(&again.join(krate)));
    fs::remove_dir_all(&again)?;
    let found = read_files(Path::new(krate))?;
    let found = found.into_iter().map(|(path, text)| (again.join(path), text));
    Ok(made? == found.collect::<Vec<_>>())
}
