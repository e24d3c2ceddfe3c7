//! A service among others: it knows them, and they know it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::auth::keys::Jwks;
use crate::auth::{Authenticator, KeySet, Secret, ServiceKey};
use crate::balancer::{Pool, Settings};
use crate::client::{Context, ServiceClient, TokenSource};
use crate::config::Vars;
use crate::registry::{Directory, Heartbeat, Instance, Registry, RegistryUrl};
use crate::resilience::Backoff;
use crate::service::{Replica, Service};
use crate::stop::Stop;

/// How to reach the others.
#[derive(Clone)]
pub struct StackConfig {
    /// Where the replicas of all services are registered.
    pub registry: RegistryUrl,
    /// What the stack's services sign the tokens they show each other with.
    pub service_key: ServiceKey,
    /// The URL that others reach this replica at. If absent it is where the replica listens: its address
    /// or, if it listens on all, its machine's name.
    pub advertise_url: Option<String>,
}

impl StackConfig {
    /// Reads `REGISTRY_URL`, `CONSUL_HTTP_TOKEN`, `SERVICE_TOKEN_KEY_FILE` and `ADVERTISE_URL`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let registry: RegistryUrl =
            vars.or("REGISTRY_URL", "memory://127.0.0.1:9090", "where replicas are registered");
        let token: Option<String> = vars.optional("CONSUL_HTTP_TOKEN", "ACL token to show Consul");
        let advertise_url: Option<String> =
            vars.optional("ADVERTISE_URL", "URL that others reach this replica at");
        if advertise_url.as_ref().is_some_and(|url| Instance::parse("", url).is_err()) {
            vars.reject("ADVERTISE_URL is not usable: write http://host:port");
        }
        Self {
            registry: registry.with_consul_token(token.map(Secret::new)),
            service_key: vars.required("SERVICE_TOKEN_KEY_FILE", "file with the key of service tokens"),
            advertise_url,
        }
    }
}

/// A service's view of the others. Made on the main thread; clones share it.
#[derive(Clone)]
pub struct Stack {
    service: &'static str,
    config: StackConfig,
    registry: Rc<dyn Registry>,
    directory: Directory,
}

impl Stack {
    /// The stack as `service` sees it.
    pub fn new(service: &'static str, config: StackConfig) -> Self {
        Self::with_settings(service, config, Settings::default())
    }

    /// The same, with pools that treat their replicas so.
    pub fn with_settings(service: &'static str, config: StackConfig, settings: Settings) -> Self {
        let tokens = TokenSource::new(service, config.service_key.clone());
        let registry = config.registry.open(&tokens);
        let directory = Directory::new(registry.clone(), settings);
        Self { service, config, registry, directory }
    }

    /// A client of another service.
    pub fn client(&self, service: &str) -> ServiceClient {
        ServiceClient::new(self.directory.watch(service), self.tokens())
    }

    /// What checks the tokens that this service is shown; user tokens with `users`' keys.
    pub fn authenticator(&self, users: KeySet) -> Authenticator {
        Authenticator::new(self.service, self.config.service_key.clone(), users)
    }

    /// The replicas of another service.
    pub fn pool(&self, service: &str) -> Arc<Pool> {
        self.directory.watch(service)
    }

    /// The keys of user tokens, followed in the background from the service that publishes them.
    pub fn user_keys(&self, issuer: &str) -> KeySet {
        Self::follow_keys(self.client(issuer))
    }

    /// The same, by a client of the issuer.
    pub fn follow_keys(issuer: ServiceClient) -> KeySet {
        let keys = KeySet::default();
        actix_web::rt::spawn(follow(issuer, keys.clone()));
        keys
    }

    /// Makes tokens to show other services.
    pub fn tokens(&self) -> TokenSource {
        TokenSource::new(self.service, self.config.service_key.clone())
    }

    fn heartbeat(&self, replica: &Replica) -> Heartbeat {
        let url = self.config.advertise_url.clone().unwrap_or_else(|| url_of(replica));
        let started_at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let instance = Instance::new(&replica.instance, &url)
            .with("started_at", started_at)
            .with("version", env!("CARGO_PKG_VERSION"));
        Heartbeat::new(self.registry.clone(), self.service, instance)
    }
}

/// Where others reach a replica: where it listens, if that is one address.
fn url_of(replica: &Replica) -> String {
    match replica.address.ip().is_unspecified() {
        true => format!("http://{}:{}", replica.hostname, replica.address.port()),
        false => format!("http://{}", replica.address),
    }
}

impl Service {
    /// Registers this replica while it runs, and takes it out of the registry when it drains.
    pub fn join(self, stack: &Stack) -> Self {
        let stack = stack.clone();
        let (announce, announced) = tokio::sync::oneshot::channel::<Heartbeat>();
        let heartbeat: Rc<std::cell::OnceCell<Heartbeat>> = Rc::default();
        let (bound, leaving) = (heartbeat.clone(), heartbeat);
        let (left, leave) = Stop::pair();
        self.on_bind(move |replica| {
            let heartbeat = stack.heartbeat(replica);
            bound.get_or_init(|| heartbeat.clone());
            // The receiver is the task below, which outlives this.
            announce.send(heartbeat).unwrap_or_default();
        })
        .on_drain(async move {
            left.stop();
            if let Some(heartbeat) = leaving.get() {
                heartbeat.clone().leave().await;
            }
        })
        .task("heartbeat", move |_| async move {
            if let Ok(heartbeat) = announced.await {
                heartbeat.run(leave).await;
            }
        })
    }
}

/// Asks again so often, and at once when a token is signed with an unknown key.
const REFRESH: Duration = Duration::from_secs(60);
/// But not more often than that: tokens come from anybody.
const PAUSE: Duration = Duration::from_secs(1);
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

async fn follow(issuer: ServiceClient, keys: KeySet) {
    let mut failures = 0;
    loop {
        match published(&issuer).await {
            Ok(jwks) => {
                failures = 0;
                keys.replace(&jwks);
                tokio::time::sleep(PAUSE).await;
                tokio::time::timeout(REFRESH, keys.wanted()).await.unwrap_or_default();
            }
            Err(why) => {
                failures += 1;
                if failures % 10 == 5 {
                    log::warn!(why, failures; "the keys of user tokens cannot be had");
                }
                tokio::time::sleep(RETRY.delay(failures)).await;
            }
        }
    }
}

async fn published(issuer: &ServiceClient) -> Result<Jwks, String> {
    let answer = issuer.get("/.well-known/jwks.json").context(&Context::background()).send().await;
    answer.and_then(|answer| answer.json()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_reached_where_it_listens_or_if_that_is_everywhere_by_its_machines_name() {
        for (address, url) in [
            ("127.0.0.1:3001", "http://127.0.0.1:3001"),
            ("[::1]:3001", "http://[::1]:3001"),
            ("0.0.0.0:3001", "http://a-host:3001"),
            ("[::]:3001", "http://a-host:3001"),
        ] {
            let (service, address) = ("a-service", address.parse().unwrap());
            let replica =
                Replica { service, instance: String::new(), address, hostname: "a-host".to_owned() };
            assert_eq!(url_of(&replica), url);
        }
    }

    #[test]
    fn an_advertised_url_that_nobody_could_reach_is_refused_at_the_start() {
        let read = |url: &str| {
            let mut vars = Vars::from_pairs([("ADVERTISE_URL", url)]);
            let config = StackConfig::from_vars(&mut vars);
            vars.finish(config).err().unwrap().to_string()
        };
        assert!(read("a-host:3001").contains("ADVERTISE_URL"));
        assert!(!read("http://a-host:3001").contains("ADVERTISE_URL"));
    }
}
