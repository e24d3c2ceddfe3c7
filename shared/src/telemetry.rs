//! Logging with `log`: one line per event on standard error, as `key=value` text or as JSON. Lines go to the OTLP
//! collector, too, if there is one.
//!
//! A line that is written within a request, a message or a job has its `request_id` and `trace_id`, from
//! [`Current`](crate::trace::Current). docs/telemetry.md lists the names of all fields.
//!
//! `RUST_LOG` sets the level (`info` by default), and `LOG_FORMAT` the format (`text` or `json`). They are
//! read here, before the configuration, so that configuration errors can be logged.

mod lines; // text and JSON
mod output; // standard error

use env_filter::Filter;

use self::output::{Output, Urgency};
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
    let mut filter = env_filter::Builder::new();
    filter.filter_level(log::LevelFilter::Info).filter_module("actix_server", log::LevelFilter::Warn);
    if let Ok(levels) = std::env::var("RUST_LOG") {
        filter.parse(&levels);
    }
    let filter = filter.build();
    let max = filter.filter();
    log::set_boxed_logger(Box::new(Logger {
        service,
        filter,
        format,
        output: Output::new(Box::new(std::io::stderr()))?,
    }))?;
    log::set_max_level(max);
    limits::raise_descriptors();
    Ok(())
}

/// Writes each line to standard error, and hands it to the exporter.
struct Logger {
    service: &'static str,
    filter: Filter,
    format: fn(&str, &log::Record<'_>) -> String,
    output: Output,
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.filter.matches(record) {
            self.output.write(&(self.format)(self.service, record), urgency(record.metadata()));
            otlp::export_log(record);
        }
    }

    fn flush(&self) {
        self.output.flush();
    }
}

/// Lines of requests come in such numbers that each write counts. Those of failures do not, and may be the last.
fn urgency(line: &log::Metadata<'_>) -> Urgency {
    match line.target() == "request" && line.level() >= log::Level::Info {
        true => Urgency::Soon,
        false => Urgency::AtOnce,
    }
}
