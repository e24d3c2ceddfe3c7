//! Runs the programs of `programs.txt` as processes of this machine: for `scripts/up` and `scripts/down`,
//! for the end-to-end tests and for the bench.
//!
//! Few dependencies, so that it is built within seconds.

pub mod programs; // programs.txt
pub mod secrets; // keys and passwords, made once
pub mod replica; // one process: its variables, its log, its end
pub mod stack; // data/run: up, down, and the supervisor
pub mod process; // what proc(5) says, pid files, signals
pub mod http; // GET
pub mod json; // values by path
pub mod generator; // new-service and remove-service

pub use process::Process;
pub use programs::{Kind, Program, gateway, programs, services};
pub use replica::{Layout, Replica};
pub use secrets::{Authority, Secrets};
