//! Posts batches to the collector. The HTTP client belongs to one thread, so the sender runs there, and exporters on
//! any thread pass batches to it.

use std::collections::BTreeSet;
use std::time::Duration;

use actix_web::http::Method;
use tokio::sync::{mpsc, oneshot};

use crate::http::{Call, exchange};

const TIMEOUT: Duration = Duration::from_secs(3);

/// One request to the collector.
struct Post {
    path: &'static str,
    body: String,
    result: oneshot::Sender<Result<(), String>>,
}

#[derive(Debug, Clone)]
pub(super) struct Sender(mpsc::Sender<Post>);

pub(super) struct Sending {
    base: String,
    posts: mpsc::Receiver<Post>,
}

pub(super) fn pair(endpoint: &url::Url) -> (Sender, Sending) {
    let (sender, posts) = mpsc::channel(1);
    (Sender(sender), Sending { base: endpoint.as_str().trim_end_matches('/').to_owned(), posts })
}

impl Sender {
    /// Returns when the collector has the batch, or has not answered in time.
    pub(super) async fn post(&self, path: &'static str, body: String) -> Result<(), String> {
        let (result, answered) = oneshot::channel();
        let ended = |_| "the sender has ended".to_owned();
        self.0.send(Post { path, body, result }).await.map_err(|_| ended(()))?;
        answered.await.map_err(|_| ended(()))?
    }
}

impl Sending {
    /// Runs until the last [`Sender`] is dropped.
    pub(super) async fn run(mut self) {
        // A collector of traces alone refuses log lines each time.
        let mut failing = BTreeSet::new();
        while let Some(Post { path, body, result }) = self.posts.recv().await {
            let call = Call::new(Method::POST, format!("{}{path}", self.base), TIMEOUT).json(body);
            let sent = match exchange(call).await {
                Ok(answer) if answer.status.is_success() => Ok(()),
                Ok(answer) => Err(answer.status.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match &sent {
                Ok(()) => _ = failing.remove(path),
                Err(error) if failing.insert(path) => {
                    log::warn!(path, error; "telemetry is dropped until the collector accepts it");
                }
                Err(_) => {}
            }
            // The exporter may have given up.
            let _ = result.send(sent);
        }
    }
}
