//! The services' calls for admins. Each is made with the admin's own token, so that an audit table names the person.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use shared::client::{ClientError, Context, RequestBuilder, ServiceClient};
use shared::http::Response;
use uuid::Uuid;

use crate::config::{CALLS, ORDERS, PAYMENTS};

/// The time limit of a read. After it, a page is shown without the data of that service.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// Clients of the services with calls for admins, by name.
#[derive(Clone)]
pub struct Admin {
    clients: BTreeMap<String, ServiceClient>,
    timeout: Duration,
}

/// The caller: an admin's token, and the context of the request.
#[derive(Clone)]
pub struct Asker {
    pub token: String,
    pub context: Context,
}

/// The services that send or receive events, by the table of calls.
pub fn with_messages() -> BTreeSet<&'static str> {
    let rows = CALLS.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace());
    rows.filter_map(|mut columns| {
        let (caller, callee, method) = (columns.next()?, columns.next()?, columns.next()?);
        (method == "EVENT").then_some([caller, callee])
    })
    .flatten()
    .collect()
}

impl Admin {
    /// `client` makes the client of a service.
    pub fn new(client: impl Fn(&str) -> ServiceClient) -> Self {
        let names = with_messages().into_iter().chain([ORDERS, PAYMENTS]);
        let clients = names.map(|name| (name.to_owned(), client(name))).collect();
        Self { clients, timeout: TIMEOUT }
    }

    /// Sets another time limit of reads.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.clients.keys().map(String::as_str)
    }

    /// The JSON of a successful answer; `None` without one in time.
    pub async fn read(&self, service: &str, path: &str, asker: &Asker) -> Option<Value> {
        let answer = self.get(service, path, asker).await;
        match answer {
            Ok(answer) if answer.status.is_success() => answer.json().ok(),
            Ok(answer) => {
                log::info!(peer_service = service, path, status = answer.status.as_u16(); "a read was refused");
                None
            }
            Err(error) => {
                log::info!(peer_service = service, path, error:%; "a read got no response");
                None
            }
        }
    }

    pub async fn get(&self, service: &str, path: &str, asker: &Asker) -> Result<Response, ClientError> {
        let client = self.client(service)?;
        by(client.get(path), asker).timeout(self.timeout).send().await
    }

    pub async fn post(&self, service: &str, path: &str, asker: &Asker) -> Result<Response, ClientError> {
        let client = self.client(service)?;
        by(client.post(path), asker).idempotency_key(Uuid::now_v7().to_string()).send().await
    }

    pub async fn delete(&self, service: &str, path: &str, asker: &Asker) -> Result<Response, ClientError> {
        by(self.client(service)?.delete(path), asker).send().await
    }

    fn client(&self, service: &str) -> Result<&ServiceClient, ClientError> {
        self.clients.get(service).ok_or_else(|| ClientError::Unavailable(service.to_owned()))
    }
}

fn by<'a>(request: RequestBuilder<'a>, asker: &Asker) -> RequestBuilder<'a> {
    request.context(&asker.context).header("authorization", format!("Bearer {}", asker.token))
}

/// What is encoded in a path or a query; a dot too, because `..` has a meaning there.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// Encodes text for a path or a query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_or_receives_events_has_messages() {
        let names = with_messages();
        assert!(names.contains(ORDERS) && names.contains(PAYMENTS), "{names:?}");
        assert!(
            !names.contains("*") && !names.contains("gateway") && !names.contains("storefront"),
            "{names:?}"
        );
    }
}
