//! Wires the gateway: the public server and the admin server, with their shared state and background tasks.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Instant;

use actix_web::web;
use arc_swap::ArcSwap;
use shared::auth::Authenticator;
use shared::balancer::Pool;
use shared::client::ServiceClient;
use shared::platform::Platform;
use shared::registry::{Networks, RegistryUrl};
use shared::service::{BuildFuture, HttpConfig, Listener, Server, Service};
use shared::stop::Stop;
use shared::tls::{Certificates, ClientTls};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::access_log::AccessLog;
use crate::admin::{self, Console};
use crate::cache::Cache;
use crate::checks;
use crate::concurrency::Concurrency;
use crate::config::{Config, folder_of};
use crate::docs::{self, Docs};
use crate::edge;
use crate::engine::Engine;
use crate::identity::Identity;
use crate::oidc::Oidc;
use crate::proxy::Gateway;
use crate::rate::RateLimits;
use crate::registrations::{Registrations, settings};
use crate::routing::{GatewayConfig, ServiceLimits, Table};
use crate::tls;
use crate::watch::Watch;

/// The name of this program.
pub const SERVICE: &str = "gateway";
/// The service that publishes the keys of user tokens.
const ISSUER: &str = "user-service";

pub fn build(config: Config) -> BuildFuture<anyhow::Error> {
    Box::pin(wire(config))
}

async fn wire(config: Config) -> anyhow::Result<Server> {
    let public = config.http.clone();
    let listener = Listener::bind_shared(SERVICE, config.http)?;
    let settings = settings(config.platform.tls.clone());
    let registrations = Arc::new(match config.platform.registry {
        RegistryUrl::Memory(_) => Registrations::new(settings.clone(), config.state_file),
        _ => Registrations::following(settings.clone()),
    });
    let networks = Networks::default();
    let platform = Platform::within(networks.clone(), listener.replica(), config.platform, settings);
    let folder = folder_of(&config.config_file).to_owned();
    let tables = Rc::new(Tables {
        file: config.config_file,
        folder: folder.clone(),
        platform: platform.clone(),
        registrations: registrations.clone(),
        networks,
        limits: Mutex::default(),
        at_start: OnceCell::new(),
    });
    let (table, certificates) = tables.read().map_err(anyhow::Error::msg)?;
    let secure = match (&table.config.tls, certificates) {
        (Some(entry), Some(certificates)) => {
            let http = HttpConfig { port: entry.port, ..public };
            Some((ClientTls::new(certificates)?, Listener::bind_shared(SERVICE, http)?))
        }
        _ => None,
    };
    let client_tls = secure.as_ref().map(|(tls, _)| tls.clone());
    let table = Arc::new(ArcSwap::from_pointee(table));

    let issuer = ServiceClient::new(tables.pool(ISSUER), platform.tokens());
    let authenticator = platform.authenticator(Platform::follow_keys(issuer));
    let console = web::Data::new(Console {
        pages: config.console,
        table: table.clone(),
        registrations: registrations.clone(),
        refused: Mutex::default(),
        refused_certificates: Mutex::default(),
    });
    let oidc = table.load().config.oidc.clone().map(Oidc::new);
    let gateway = web::Data::new(Gateway {
        table: table.clone(),
        identity: Identity::new(authenticator.clone(), oidc.clone()),
        rates: RateLimits::new(&table.load(), config.rate_limits),
        concurrency: Concurrency::new(&table.load(), config.rate_limits),
        untrusted_proxy: Once::new(),
        cache: Cache::new(table.load().config.cache_mib * 1024 * 1024),
        kept_bodies: Arc::new(Semaphore::new(table.load().config.kept_bodies_mib * 1024 * 1024)),
    });
    let docs = Arc::new(Docs::default());
    let documented_services = tables.clients(&table.load());

    let admin_listener = Listener::bind_shared(SERVICE, config.admin)?;
    let (tls, public_tls) = (platform.tls(), client_tls.clone());
    let admin_server = admin_service(admin_listener, authenticator, console.clone())
        .measure(move |readings| {
            if let Some(tls) = &tls {
                tls.measure(readings);
            }
            if let Some(tls) = &public_tls {
                tls.measure(readings);
            }
        })
        .build()?;
    let admin_handle = admin_server.handle();
    let (checked, saved) = (registrations.clone(), registrations.clone());
    let (watched, shown, watching) = (table.clone(), client_tls.clone(), console.clone());
    let cache = gateway.cache.clone();
    let server = public_service(listener, secure, gateway.clone(), docs.clone(), config.rate_limits)
        .task("leases", move |stop| async move { registrations.expire(stop).await })
        .task("state file", move |stop| async move { saved.write(stop).await })
        .task("checks", move |stop| checks::run(move || checked.pools(), stop))
        .task("rates", move |stop| async move { gateway.rates.prune(stop).await })
        .task("docs", move |stop| docs.follow(documented_services, stop))
        .task("reload", move |stop| reload(tables, client_tls, table, cache, console, stop))
        .task("oidc", move |stop| async move {
            match oidc {
                Some(oidc) => oidc.follow(stop).await,
                None => stop.requested().await,
            }
        })
        .task("certificates", move |stop| tls::watch(folder, shown, watched, watching, stop))
        .task("admin", move |_| serve_admin(admin_server))
        .on_drain(async move { admin_handle.stop().await })
        .build()?;
    Ok(server)
}

/// The admin listener: routes, registry and metrics.
fn admin_service(listener: Listener, authenticator: Authenticator, console: web::Data<Console>) -> Service {
    let (registrations, table) = (console.registrations.clone(), console.table.clone());
    Service::new(listener)
        .without_signals()
        .authenticate(authenticator)
        .configure(move |app| {
            app.app_data(console.clone());
            admin::configure(app);
        })
        .measure(move |readings| {
            registrations.pools().iter().for_each(|pool| pool.measure(readings, Instant::now()));
            table.load().measure(readings);
        })
}

/// The public listeners: documents, and the proxy for every other path. The one for TLS exists if the table had a
/// section for it at the start.
fn public_service(
    listener: Listener,
    secure: Option<(ClientTls, Listener)>,
    gateway: web::Data<Gateway>,
    docs: Arc<Docs>,
    limits: bool,
) -> Service {
    let (redirects, secured) = (gateway.table.clone(), gateway.table.clone());
    let (table, served, proxies) = (gateway.table.clone(), gateway.table.clone(), gateway.table.clone());
    let logged = gateway.clone();
    let max = if limits { table.load().config.connections_per_client } else { usize::MAX };
    let start = Arc::new(Start::default());
    let service = match secure {
        Some((tls, secure)) => Service::new(listener)
            .client_tls(tls, secure)
            .redirect(move |request| tls::redirect(request, &redirects.load()))
            .hsts(move || tls::hsts(&secured.load())),
        None => Service::new(listener),
    };
    service
        .edge()
        .log_fields(move |request| AccessLog::begin(request, || logged.client(request)))
        .limit_clients(max, move |client| proxies.load().is_trusted(&client))
        .check("start", move || ready(named(start.awaited(&unserved(&table.load())))))
        .advisory("routes", move || ready(named(unserved(&served.load()))))
        .configure(move |app| {
            app.app_data(gateway.clone())
                .app_data(web::Data::new(Engine::default()))
                .app_data(web::Data::from(docs.clone()));
            docs::configure(app);
            app.default_service(web::to(edge::edge));
        })
}

/// The result of a readiness check. The error lists the `missing` names.
fn named(missing: BTreeSet<String>) -> Result<(), String> {
    if missing.is_empty() { Ok(()) } else { Err(missing.into_iter().collect::<Vec<_>>().join(", ")) }
}

/// Readiness at the start. The gateway becomes ready when each routed service has had an available replica, and then
/// stays ready. Otherwise, a load balancer in front would remove every gateway when one service is down. A route that
/// a reload adds is ignored.
#[derive(Default)]
struct Start(Mutex<Option<BTreeSet<String>>>);

impl Start {
    /// The services that have had no replica since the start. `unserved` lists those that have none now.
    fn awaited(&self, unserved: &BTreeSet<String>) -> BTreeSet<String> {
        let mut awaited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = awaited.take().unwrap_or_else(|| unserved.clone());
        awaited.insert(left.intersection(unserved).cloned().collect()).clone()
    }
}

/// The services with a route but without a healthy replica.
fn unserved(table: &Table) -> BTreeSet<String> {
    let unserved = table.routes.iter().filter(|route| !route.pool.is_available());
    unserved.map(|route| route.entry.service.clone()).collect()
}

/// Reads routing tables from the file. Tables that are read later share the pool and the limits of a service.
struct Tables {
    file: PathBuf,
    /// The folder of the file. Paths of certificates are relative to it.
    folder: PathBuf,
    platform: Platform,
    registrations: Arc<Registrations>,
    /// `instance_networks` of the file, for the registries other than the one in memory.
    networks: Networks,
    limits: Mutex<BTreeMap<String, Arc<ServiceLimits>>>,
    /// The first file that was read.
    at_start: OnceCell<GatewayConfig>,
}

impl Tables {
    /// A file that changes a key which is read only at the start is refused.
    fn read(&self) -> Result<(Table, Option<Certificates>), String> {
        let in_file = |why: String| format!("{}: {why}", self.file.display());
        let text = std::fs::read_to_string(&self.file).map_err(|error| in_file(error.to_string()))?;
        let config = GatewayConfig::parse(&text).map_err(in_file)?;
        if let Some(at_start) = self.at_start.get() {
            config.check_unchanged(at_start, &text).map_err(in_file)?;
        }
        let certificates = match self.at_start.get() {
            None => config.read_files(&self.folder),
            Some(_) => config.read_certificates(&self.folder),
        };
        let certificates = certificates.map_err(in_file)?;
        self.at_start.get_or_init(|| config.clone());
        self.networks.store(Arc::new(config.instance_networks.clone()));
        let table = Table::new(config, &text, |service| self.pool(service), |service| self.limits(service));
        Ok((table, certificates))
    }

    fn pool(&self, service: &str) -> Arc<Pool> {
        if self.registrations.is_authoritative() {
            return self.registrations.pool(service);
        }
        let pool = self.platform.pool(service);
        self.registrations.track(pool.clone());
        pool
    }

    fn limits(&self, service: &str) -> Arc<ServiceLimits> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits
            .entry(service.to_owned())
            .or_insert_with(|| Arc::new(ServiceLimits::new(Instant::now())))
            .clone()
    }

    /// One client for each service with a listed route.
    fn clients(&self, table: &Table) -> Vec<ServiceClient> {
        let listed = table.routes.iter().filter(|route| route.entry.listed);
        let services: BTreeSet<_> = listed.map(|route| route.entry.service.clone()).collect();
        services
            .iter()
            .map(|service| ServiceClient::new(self.pool(service), self.platform.tokens()))
            .collect()
    }
}

/// Reads the file again when it has changed, and at each SIGHUP. If it is invalid, the current table stays in force.
async fn reload(
    tables: Rc<Tables>,
    tls: Option<ClientTls>,
    table: Arc<ArcSwap<Table>>,
    cache: Arc<Cache>,
    console: web::Data<Console>,
    stop: Stop,
) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return log::error!(error:%; "SIGHUP cannot be received"),
    };
    let file = tables.file.clone();
    let mut watch = Watch::new(move || vec![file.clone()]);
    while !stop.is_requested() {
        tokio::select! {
            _ = hangups.recv() => watch.catch_up(),
            () = watch.changed() => {}
            () = stop.requested() => return,
        }
        let refused = match tables.read() {
            Ok((mut new, certificates)) => {
                log::info!(hash = new.hash; "the routes were reloaded");
                new.take_switches_of(&table.load());
                table.swap(Arc::new(new)).replaced();
                // A route may have another service now.
                cache.clear();
                tls.iter().zip(certificates).for_each(|(tls, certificates)| tls.replace(certificates));
                None
            }
            Err(why) => {
                log::error!(error = why; "the routes cannot be reloaded: the current ones stay in force");
                Some(why)
            }
        };
        *console.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    }
}

async fn serve_admin(admin: Server) {
    if let Err(error) = admin.run().await {
        log::error!(error:%; "the admin port failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_waits_for_the_first_replica_of_each_service_and_only_for_that() {
        let services = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let start = Start::default();
        assert_eq!(start.awaited(&services(&["a", "b"])), services(&["a", "b"]));
        assert_eq!(start.awaited(&services(&["b"])), services(&["b"]));
        assert_eq!(start.awaited(&services(&["a", "b"])), services(&["b"]), "a had a replica");
        assert_eq!(start.awaited(&services(&[])), services(&[]));
        assert_eq!(start.awaited(&services(&["a", "b", "new"])), services(&[]), "ready once, ready for good");
    }
}
