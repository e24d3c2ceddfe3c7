//! Drives a running stack from outside: `scripts/chaos`, `scripts/faults`, `scripts/bench`. And measures the gateway
//! beside other proxies.

pub mod customer; // a client that sends again until it is answered
pub mod deployment; // the stack under test, and its admin
pub mod workload; // what customers order, pay, cancel and read
pub mod environment; // where the stack runs: processes of this machine, or containers
pub mod faults; // fault injection from outside
pub mod lab; // the faults that programs do to themselves
pub mod snapshot; // the state of every part of the stack
pub mod report; // the table of an account
pub mod settled; // waits until all hold, and checks that nothing changes afterwards
pub mod attacks; // hostile clients
pub mod measure; // processor time and memory
pub mod database; // rows, bytes and transactions
pub mod proxies; // the gateway beside nginx, HAProxy, Pingora and a naive Node gateway

/// The console checks them, too.
pub use console::domain::invariants::{self, client_log};

use std::process::ExitCode;

use shared::service::ended_by_signal;
use shared::stop::Stop;

/// 1 if a check failed, or could not be made; why is printed then.
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

/// Requested on SIGTERM or Ctrl-C: the program may have something to undo before it ends.
pub fn stop_on_signals() -> Stop {
    let (stopper, stop) = Stop::pair();
    actix_web::rt::spawn(async move {
        ended_by_signal().await;
        stopper.stop();
    });
    stop
}
