//! A replica's link to the other services: registration, clients, service tokens and user-token keys.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::auth::keys::Jwks;
use crate::auth::{Authenticator, Calls, KeySet, ServiceKeys};
use crate::balancer::{Pool, Settings};
use crate::client::{Context, ServiceClient, TokenSource};
use crate::config::Vars;
use crate::registry::{Directory, Heartbeat, Instance, Networks, Registry, RegistryUrl, Within};
use crate::resilience::Backoff;
use crate::service::{Replica, Service};
use crate::stop::Stop;
use crate::tls::Tls;

#[derive(Clone)]
pub struct PlatformConfig {
    pub registry: RegistryUrl,
    /// Sign and verify service tokens.
    pub service_keys: ServiceKeys,
    /// The permitted calls and events (`calls.txt`).
    pub calls: Calls,
    /// URL of this replica for others. If absent, [`Replica::url`].
    pub advertise_url: Option<String>,
    /// Mutual TLS with other programs.
    pub tls: Option<Tls>,
}

impl PlatformConfig {
    /// Reads `REGISTRY_URL`, `CONSUL_HTTP_TOKEN`, `SERVICE_TOKEN_KEY_FILE`, `SERVICE_TOKEN_PUBLIC_KEYS`,
    /// `ADVERTISE_URL` and `TLS_FOLDER`. `calls` is the text of the table. `None` without keys.
    pub fn from_vars(vars: &mut Vars, calls: &str) -> Option<Self> {
        let registry = RegistryUrl::from_vars(vars);
        let advertise_url: Option<String> =
            vars.optional("ADVERTISE_URL", "URL that others reach this replica at");
        if advertise_url.as_ref().is_some_and(|url| Instance::parse("", url).is_err()) {
            vars.reject("ADVERTISE_URL is not usable: write http://host:port");
        }
        let tls = Tls::from_vars(vars);
        let own = vars.required(
            "SERVICE_TOKEN_KEY_FILE",
            "file with this program's Ed25519 keys (PEM) of service tokens",
        );
        let public = vars
            .required("SERVICE_TOKEN_PUBLIC_KEYS", "folder with the public keys of all services: NAME.pem");
        let calls = Calls::parse(calls).map_err(|why| vars.reject(format!("the table of calls: {why}")));
        let service_keys = ServiceKeys::new(Arc::new(own?), Arc::new(public?));
        Some(Self { registry, service_keys, calls: calls.ok()?, advertise_url, tls })
    }

    fn open(&self, replica: &Replica) -> Rc<dyn Registry> {
        self.registry.open(&TokenSource::new(replica.service, self.service_keys.clone()))
    }
}

/// Access to the other services. Used on the main thread; clones share it.
#[derive(Clone)]
pub struct Platform {
    replica: Replica,
    config: PlatformConfig,
    registry: Rc<dyn Registry>,
    directory: Directory,
}

impl Platform {
    /// Does not register the replica; [`Service::register`] does.
    pub fn new(replica: &Replica, config: PlatformConfig) -> Self {
        let registry = config.open(replica);
        Self::on(registry, replica, config, Settings::default())
    }

    /// The same, and uses only instances in `networks`.
    pub fn within(networks: Networks, replica: &Replica, config: PlatformConfig, settings: Settings) -> Self {
        let registry = Rc::new(Within::new(config.open(replica), networks));
        Self::on(registry, replica, config, settings)
    }

    fn on(registry: Rc<dyn Registry>, replica: &Replica, config: PlatformConfig, settings: Settings) -> Self {
        let settings = Settings { tls: config.tls.clone(), ..settings };
        let directory = Directory::new(registry.clone(), settings);
        Self { replica: replica.clone(), config, registry, directory }
    }

    /// Mutual TLS with other programs, if it is on.
    pub fn tls(&self) -> Option<Tls> {
        self.config.tls.clone()
    }

    pub fn client(&self, service: &str) -> ServiceClient {
        ServiceClient::new(self.directory.watch(service), self.tokens())
    }

    /// Verifies the tokens that this service receives; user tokens with the keys `users`.
    pub fn authenticator(&self, users: KeySet) -> Authenticator {
        let PlatformConfig { service_keys, calls, .. } = self.config.clone();
        Authenticator::new(self.replica.service, service_keys, calls, users)
    }

    /// The permitted calls and events (`calls.txt`).
    pub fn calls(&self) -> &Calls {
        &self.config.calls
    }

    pub fn pool(&self, service: &str) -> Arc<Pool> {
        self.directory.watch(service)
    }

    /// The keys of user tokens, fetched and refreshed in the background from the service `issuer`.
    pub fn user_keys(&self, issuer: &str) -> KeySet {
        Self::follow_keys(self.client(issuer))
    }

    /// The same, with a given client of the issuer.
    pub fn follow_keys(issuer: ServiceClient) -> KeySet {
        let keys = KeySet::empty(issuer.service());
        actix_web::rt::spawn(follow(issuer, keys.clone()));
        keys
    }

    /// Mints service tokens of this service.
    pub fn tokens(&self) -> TokenSource {
        TokenSource::new(self.replica.service, self.config.service_keys.clone())
    }

    fn heartbeat(&self) -> Heartbeat {
        let url = self.config.advertise_url.clone().unwrap_or_else(|| self.replica.url());
        let started_at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let url = match self.config.tls {
            Some(_) => url.replacen("http://", "https://", 1),
            None => url,
        };
        let instance = Instance::new(&self.replica.instance, &url)
            .with("started_at", started_at)
            .with("version", env!("CARGO_PKG_VERSION"));
        Heartbeat::new(self.registry.clone(), self.replica.service, instance)
    }
}

impl Service {
    /// Registers this replica when it starts, and deregisters it when it drains. With mutual TLS it accepts nothing
    /// else.
    pub fn register(self, platform: &Platform) -> Self {
        let heartbeat = platform.heartbeat();
        let leaving = heartbeat.clone();
        let (stopper, stop_heartbeat) = Stop::pair();
        self.tls(platform.config.tls.clone())
            .on_drain(async move {
                stopper.stop();
                leaving.leave().await;
            })
            .task("heartbeat", move |_| heartbeat.run(stop_heartbeat))
    }
}

/// Interval of fetching keys. A token with an unknown key causes a fetch at once.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// Shortest time between two fetches, because any client can send tokens with unknown keys.
const MIN_REFRESH_PAUSE: Duration = Duration::from_secs(1);
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

async fn follow(issuer: ServiceClient, keys: KeySet) {
    let mut failures = 0;
    loop {
        match fetch_keys(&issuer).await {
            Ok(jwks) => {
                failures = 0;
                keys.replace(&jwks);
                tokio::time::sleep(MIN_REFRESH_PAUSE).await;
                tokio::time::timeout(REFRESH_INTERVAL, keys.wanted()).await.unwrap_or_default();
            }
            Err(why) => {
                failures += 1;
                if failures % 10 == 5 {
                    log::warn!(error = why, failures; "the keys of user tokens cannot be fetched");
                }
                tokio::time::sleep(RETRY.delay(failures)).await;
            }
        }
    }
}

async fn fetch_keys(issuer: &ServiceClient) -> Result<Jwks, String> {
    let answer = issuer.get("/.well-known/jwks.json").context(&Context::background()).send().await;
    answer.map_err(|error| error.to_string())?.json().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_advertised_url_is_refused_at_the_start() {
        let read = |url: &str| {
            let mut vars = Vars::from_pairs([("ADVERTISE_URL", url)]);
            let config = PlatformConfig::from_vars(&mut vars, "");
            vars.finish(config).err().unwrap().to_string()
        };
        assert!(read("a-host:3001").contains("ADVERTISE_URL"));
        assert!(!read("http://a-host:3001").contains("ADVERTISE_URL"));
    }
}
