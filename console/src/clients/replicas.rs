//! Reads the health and the metrics of one replica, directly at its own port. They need no token.

use std::time::Duration;

use actix_web::http::Method;
use shared::http::{Call, Response, exchange};
use shared::tls::Tls;

use crate::domain::Health;

/// Short: many are asked, and an answer without one of them is better than a late one.
const TIMEOUT: Duration = Duration::from_millis(700);

#[derive(Clone)]
pub struct Replicas {
    tls: Option<Tls>,
}

impl Replicas {
    pub fn new(tls: Option<Tls>) -> Self {
        Self { tls }
    }

    /// `None` if it does not answer in time.
    pub async fn health(&self, service: &str, url: &str) -> Option<Health> {
        self.get(service, url, "/health/ready").await?.json().ok()
    }

    /// The same, of its metrics as Prometheus text.
    pub async fn metrics(&self, service: &str, url: &str) -> Option<String> {
        let answer = self.get(service, url, "/metrics").await?;
        answer.status.is_success().then(|| String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Uses TLS only towards services, which have a certificate of their name.
    async fn get(&self, service: &str, url: &str, path: &str) -> Option<Response> {
        let peer = self.tls.as_ref().filter(|_| url.starts_with("https:")).map(|tls| tls.peer(service));
        let call = Call::new(Method::GET, format!("{url}{path}"), TIMEOUT).to_peer(peer.as_ref());
        exchange(call)
            .await
            .inspect_err(|error| log::debug!(peer_service = service, url, error:%; "no answer"))
            .ok()
    }
}
