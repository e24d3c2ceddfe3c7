//! The part of `scripts/` that is written in Rust.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use xtask::{Secrets, generator, json, stack};

/// Services fetch the keys of user tokens every minute.
const SPREAD: Duration = Duration::from_secs(65);
/// Access tokens live for five minutes (`ACCESS_TOKEN_TTL`), service tokens for one, on clocks that differ by one.
const LIFE: Duration = Duration::from_secs(420);

const USAGE: &str = "xtask up [--mutual-tls] [--tls] | down [--wipe] | supervise [--mutual-tls] [--tls] | rotate | pid NAME | memory | json [--each PATH] PATH… | \
                     new-service NAME [--singular NOUN] | remove-service NAME [--force]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["up", ref options @ ..] if stack::are_options(options) => stack::up(options),
        ["down"] => stack::down(false),
        ["down", "--wipe"] => stack::down(true),
        ["supervise", ref options @ ..] if stack::are_options(options) => stack::supervise(options),
        ["pid", name] => {
            print(stack::process(name).map(|process| process.id).ok_or(io::ErrorKind::NotFound.into()))
        }
        ["rotate"] => {
            Secrets::make(Path::new(stack::SECRETS)).and_then(|secrets| secrets.rotate(SPREAD, LIFE))
        }
        ["memory"] => print(stack::memory()),
        ["new-service", name] => generator::new_service(name, None),
        ["new-service", name, "--singular", singular] => generator::new_service(name, Some(singular)),
        ["remove-service", name] => generator::remove_service(name, false),
        ["remove-service", name, "--force"] => generator::remove_service(name, true),
        ["json", ..] => json::print(&arguments[1..]),
        _ => Err(io::Error::other(USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // A script that asks for a process that does not run says so itself.
        Err(why) if why.kind() == io::ErrorKind::NotFound && words.first() == Some(&"pid") => {
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn print(value: io::Result<impl std::fmt::Display>) -> io::Result<()> {
    println!("{}", value?);
    Ok(())
}
