//! Lists the files of `assets/`, so that they are in the program.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=assets");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let mut files: Vec<_> = match fs::read_dir(&folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?,
        Err(_) => Vec::new(),
    };
    files.sort();
    let mut list = String::from("[\n");
    for file in files.iter().filter(|file| file.is_file()) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let path = format!(r#"concat!(env!("CARGO_MANIFEST_DIR"), "/assets/", {name:?})"#);
        // Writing to a String cannot fail.
        let _ = writeln!(list, "({name:?}, include_bytes!({path}) as &[u8]),");
    }
    list.push(']');
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&out).join("assets.rs"), list)
}
