//! The failure lab (`LAB=on`): faults that programs do to themselves. They are asked and told with the admin's own
//! token, each at its own port, because a fault belongs to one replica.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::http::{Call, Response, exchange};
use shared::tls::Tls;

use super::admin::{Asker, encoded};
use super::gateway::Gateway;
use crate::error::Error;

const TIMEOUT: Duration = Duration::from_millis(1000);

/// Programs outside of the registry, which have one replica.
const GATEWAY: &str = "gateway";
pub const CARD_NETWORK: &str = "card-network";

#[derive(Clone)]
pub struct Lab {
    gateway: Gateway,
    card_network: Option<String>,
    tls: Option<Tls>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Replica {
    pub program: String,
    pub replica: String,
    /// Faults that it can have; none if it does not answer.
    pub offers: Vec<String>,
    pub running: Vec<Running>,
    /// How often each fault has acted since it was last started.
    injected: BTreeMap<String, u64>,
    started_at: Option<String>,
    #[serde(skip)]
    url: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    pub fault: String,
    pub left_s: f64,
}

#[derive(Deserialize)]
struct Answer {
    offers: Vec<String>,
    running: Vec<Running>,
    #[serde(default)]
    injected: BTreeMap<String, u64>,
    #[serde(default)]
    started_at: Option<String>,
}

impl Lab {
    pub fn new(gateway: Gateway, card_network: Option<String>, tls: Option<Tls>) -> Self {
        Self { gateway, card_network, tls }
    }

    /// Every replica that has a lab, or does not answer.
    pub async fn replicas(&self, asker: &Asker) -> Vec<Replica> {
        let asked = self.known().await.into_iter().map(async |replica| {
            let answer = self.send(&replica, Method::GET, "", None, asker).await.ok();
            if answer.as_ref().is_some_and(|answer| answer.status == StatusCode::NOT_FOUND) {
                return None;
            }
            match answer.and_then(|answer| answer.json().ok()) {
                Some(Answer { offers, running, injected, started_at }) => {
                    Some(Replica { offers, running, injected, started_at, ..replica })
                }
                None => Some(replica),
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    pub async fn start(
        &self,
        program: &str,
        replica: &str,
        fault: &str,
        seconds: u64,
        asker: &Asker,
    ) -> Result<Response, Error> {
        let body = json!({ "fault": fault, "seconds": seconds }).to_string();
        self.send(&self.find(program, replica).await?, Method::POST, "", Some(body), asker).await
    }

    pub async fn end(
        &self,
        program: &str,
        replica: &str,
        fault: &str,
        asker: &Asker,
    ) -> Result<Response, Error> {
        let path = format!("/{}", encoded(fault));
        self.send(&self.find(program, replica).await?, Method::DELETE, &path, None, asker).await
    }

    async fn find(&self, program: &str, replica: &str) -> Result<Replica, Error> {
        let mut replicas = self.known().await.into_iter();
        replicas.find(|one| one.program == program && one.replica == replica).ok_or(Error::NotFound)
    }

    /// The gateway does not name its own replica; so it comes even if it does not answer.
    async fn known(&self) -> Vec<Replica> {
        let one = |program: &str, replica: &str, url: &str| Replica {
            program: program.to_owned(),
            replica: replica.to_owned(),
            offers: Vec::new(),
            running: Vec::new(),
            injected: BTreeMap::new(),
            started_at: None,
            url: url.to_owned(),
        };
        let services = self.gateway.services().await.unwrap_or_default();
        let mut replicas = vec![one(GATEWAY, GATEWAY, self.gateway.url())];
        for service in &services {
            replicas.extend(service.instances.iter().map(|known| one(&service.name, &known.id, &known.url)));
        }
        replicas.extend(self.card_network.iter().map(|url| one(CARD_NETWORK, CARD_NETWORK, url)));
        replicas
    }

    async fn send(
        &self,
        replica: &Replica,
        method: Method,
        path: &str,
        body: Option<String>,
        asker: &Asker,
    ) -> Result<Response, Error> {
        let Replica { program, url, .. } = replica;
        // TLS is used only towards services, which have a certificate of their name.
        let peer = self.tls.as_ref().filter(|_| url.starts_with("https:")).map(|tls| tls.peer(program));
        let call = Call::new(method, format!("{}/lab/faults{path}", url.trim_end_matches('/')), TIMEOUT);
        // The card network verifies no token, so it gets none.
        let call = if program == CARD_NETWORK { call } else { call.bearer(asker.token.clone()) };
        let call = match body {
            Some(body) => call.json(body),
            None => call,
        };
        let sent = exchange(call.to_peer(peer.as_ref())).await;
        sent.map_err(|error| Error::Exchange(program.clone(), error))
    }
}
