//! What drives a running stack from outside: `scripts/chaos`, `scripts/faults`, `scripts/bench`.
//!
//! In the order in which one would read it: who buys, what is done to the stack meanwhile, which books
//! are read afterwards, and what must be true in them.

pub mod customer; // somebody who tries again until there is an answer
pub mod site; // where the stack is, and its admin
pub mod diary; // what customers were told
pub mod trade; // what customers do
pub mod ground; // what the stack runs on: processes here, or containers
pub mod havoc; // what is done to it, in which order
pub mod books; // what every part of the stack says afterwards
pub mod invariants; // what must be true then
pub mod rest; // until it is, and stays so
pub mod measure; // processor time and memory
pub mod database; // rows, bytes and transactions

use std::process::ExitCode;

use shared::stop::Stop;
use tokio::signal::unix::{SignalKind, signal};

/// How a program ends: with 1 if not all was well, or if it could not be found out, which it says.
pub fn exit(result: Result<bool, String>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Tells when the program is to end, by SIGTERM or Ctrl-C: it may have something to undo first.
///
/// # Errors
/// When signals cannot be received.
pub fn told_to_end() -> Result<Stop, String> {
    let received = |kind| signal(kind).map_err(|why| why.to_string());
    let (mut terminate, mut interrupt) =
        (received(SignalKind::terminate())?, received(SignalKind::interrupt())?);
    let (stopper, stop) = Stop::pair();
    actix_web::rt::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopper.stop();
    });
    Ok(stop)
}
