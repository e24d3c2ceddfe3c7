//! Helpers for the tests of every crate: an HTTP client ([`Api`]), polling ([`eventually`]), keys and tokens
//! ([`Keys`]), a connection that breaks on demand ([`Gate`]), and the servers of this machine.

mod gate;
mod http;
mod keys;

pub use gate::Gate;
pub use http::{Api, Reply, key, run};
pub use keys::{Keys, pem, public_pem, publish_keys};

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

/// Polls `probe` until it returns a value.
///
/// # Panics
/// After `timeout`, naming `what`.
pub async fn eventually<T>(what: &str, timeout: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {timeout:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The server in the environment variable `variable`, for tests of `what`. Without it the test is skipped,
/// which is printed and written to the file `SKIPPED_TESTS_FILE`; with `CI=true` it fails.
///
/// # Panics
/// When there is no server and `CI` is `true`.
pub fn server(variable: &str, what: &str) -> Option<String> {
    let server = std::env::var(variable).ok();
    if server.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{variable} is not set");
        skip(&format!("on {what}: {variable} is not set"));
    }
    server
}

/// Prints and counts a test that is skipped.
pub fn skip(why: &str) {
    let skipped = format!("SKIPPED {why}");
    eprintln!("{skipped}");
    note(&skipped);
}

/// `nats://host:port/stream`: the NATS server for tests, at `TEST_NATS_URL`, with a stream of its own.
pub fn nats_url() -> Option<String> {
    let server = server("TEST_NATS_URL", "NATS")?;
    Some(format!("{}/test-{}", server.trim_end_matches('/'), uuid::Uuid::now_v7().simple()))
}

/// Notes a skipped test for scripts/test: cargo does not show the output of successful tests.
fn note(skipped: &str) {
    let Ok(file) = std::env::var("SKIPPED_TESTS_FILE") else { return };
    let (program, thread) = (std::env::args().next().unwrap_or_default(), std::thread::current());
    let line = format!("{skipped} ({program} {})\n", thread.name().unwrap_or_default());
    let written = File::options().create(true).append(true).open(&file);
    written
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|why| panic!("{file}: {why}"));
}

/// `consul://host:port/prefix`: the Consul for tests, at `TEST_CONSUL_URL`, with a prefix of its own.
pub fn consul_url() -> Option<String> {
    let server = server("TEST_CONSUL_URL", "Consul")?;
    Some(format!("{}/test-{}", server.trim_end_matches('/'), uuid::Uuid::now_v7().simple()))
}
