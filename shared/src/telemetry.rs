//! Logging with `log` and `env_logger`: one line per event on standard error, as `key=value` text or as JSON. Lines go
//! to the OTLP collector, too, if there is one.
//!
//! A line that is written within a request, a message or a job has its `request_id` and `trace_id`, from
//! [`Current`](crate::trace::Current). docs/telemetry.md lists the names of all fields.
//!
//! `RUST_LOG` sets the level (`info` by default), and `LOG_FORMAT` the format (`text` or `json`). They are
//! read here, before the configuration, so that configuration errors can be logged.

mod lines; // text and JSON
mod output; // standard error

use std::io::Write as _;

use env_logger::Target;

use self::output::Output;
use crate::{limits, otlp};

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("LOG_FORMAT is {0:?}: write text or json")]
    Format(String),
    /// Logging was started before.
    #[error(transparent)]
    Started(#[from] log::SetLoggerError),
    /// There is no thread that writes lines.
    #[error(transparent)]
    Thread(#[from] std::io::Error),
}

/// Starts logging, and raises the limit of open files. `service` is the program's name in every line.
pub fn init(service: &'static str) -> Result<(), TelemetryError> {
    let format = match std::env::var("LOG_FORMAT").as_deref() {
        Ok("json") => lines::json,
        Ok("text") | Err(_) => lines::text,
        Ok(other) => return Err(TelemetryError::Format(other.to_owned())),
    };
    let output = Output::new(Box::new(std::io::stderr()))?;
    let lines = env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .filter_module("actix_server", log::LevelFilter::Warn)
        .parse_default_env()
        .target(Target::Pipe(Box::new(output.clone())))
        .format(move |out, record| writeln!(out, "{}", format(service, record)))
        .build();
    let max = lines.filter();
    log::set_boxed_logger(Box::new(Logger { lines, output }))?;
    log::set_max_level(max);
    limits::raise_descriptors();
    Ok(())
}

/// Writes each line to standard error, and hands it to the exporter.
struct Logger {
    lines: env_logger::Logger,
    output: Output,
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.lines.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.lines.matches(record) {
            self.lines.log(record);
            if !may_wait(record.metadata()) {
                self.output.write_out();
            }
            otlp::export_log(record);
        }
    }

    fn flush(&self) {
        self.output.write_out();
    }
}

/// Whether a line may wait. There are so many lines of requests that each system call counts. The lines of failures are
/// few, and may be the last before a crash.
fn may_wait(line: &log::Metadata<'_>) -> bool {
    line.target() == "request" && line.level() >= log::Level::Info
}
