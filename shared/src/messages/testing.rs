//! A broker for tests: the NATS server at `TEST_NATS_URL`, and on it a new stream each time.
//!
//! Without that variable its half of a test is skipped with a line that says so, and with `CI=true`
//! the test fails.

use uuid::Uuid;

/// The URL of a new stream on the NATS server for tests, if there is one.
pub fn nats_url() -> Option<String> {
    let Ok(server) = std::env::var("TEST_NATS_URL") else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "TEST_NATS_URL is not set");
        eprintln!("SKIPPED on NATS: TEST_NATS_URL is not set");
        return None;
    };
    Some(format!("{}/test-{}", server.trim_end_matches('/'), Uuid::now_v7().simple()))
}
