//! The only place that wires: routes, registry, checks, the public listener and the admin's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use actix_web::web;
use arc_swap::ArcSwap;
use shared::balancer::Pool;
use shared::client::ServiceClient;
use shared::registry::RegistryUrl;
use shared::service::{Listener, Replica, Server, Service};
use shared::stack::{Stack, StackConfig};
use shared::stop::Stop;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, Console};
use crate::checks;
use crate::config::Config;
use crate::docs::{self, Docs};
use crate::engine::Engine;
use crate::identity::Identity;
use crate::proxy::{self, Gateway};
use crate::rate::RateLimits;
use crate::registrations::{Registrations, settings};
use crate::routing::{Load, Table};

/// The name of this program.
pub const SERVICE: &str = "gateway";
/// Who publishes the keys of user tokens.
const ISSUER: &str = "user-service";

/// Reads the routes and binds both listeners.
///
/// # Errors
/// Whatever keeps the gateway from starting.
pub async fn build(config: Config) -> anyhow::Result<Server> {
    let listener = Listener::bind_shared(SERVICE, config.http)?;
    let registrations = Arc::new(match config.stack.registry {
        RegistryUrl::Memory(_) => Registrations::new(config.state_file),
        _ => Registrations::following(),
    });
    let tables = Tables::new(config.config_file, listener.replica(), config.stack, registrations.clone());
    let table = Arc::new(ArcSwap::from_pointee(tables.read().map_err(anyhow::Error::msg)?));
    let issuer = ServiceClient::new(tables.pool(ISSUER), tables.stack.tokens());
    let authenticator = tables.stack.authenticator(Stack::follow_keys(issuer));
    let rates = RateLimits::new(&table.load(), config.rate_limits);
    let identity = Identity::new(authenticator.clone());
    let gateway = web::Data::new(Gateway { table: table.clone(), identity, rates });
    let console = web::Data::new(Console {
        table: table.clone(),
        registrations: registrations.clone(),
        refused: Mutex::default(),
    });
    let docs = Arc::new(Docs::default());
    let documented = tables.clients(&table.load());

    let (shown, measured) = (console.clone(), registrations.clone());
    let admin = Service::new(Listener::bind_shared(SERVICE, config.admin)?)
        .without_signals()
        .authenticate(authenticator)
        .configure(move |app| {
            app.app_data(shown.clone());
            admin::configure(app);
        })
        .measure(move |readings| {
            measured.pools().iter().for_each(|pool| pool.measure(readings, Instant::now()));
        })
        .build()?;
    let admins = admin.handle();

    let (limited, served, shown, checked) =
        (gateway.clone(), docs.clone(), table.clone(), registrations.clone());
    let server = Service::new(listener)
        .edge()
        .check("routes", move || {
            let missing: Vec<_> = unserved(&shown.load()).into_iter().collect();
            let missing = missing.join(", ");
            async move { if missing.is_empty() { Ok(()) } else { Err(missing) } }
        })
        .configure(move |app| {
            app.app_data(gateway.clone())
                .app_data(web::Data::new(Engine::default()))
                .app_data(web::Data::from(served.clone()));
            docs::configure(app);
            app.default_service(web::to(proxy::proxy));
        })
        .task("leases", move |stop| async move { registrations.expire(stop).await })
        .task("checks", move |stop| checks::run(move || checked.pools(), stop))
        .task("rates", move |stop| async move { limited.rates.prune(stop).await })
        .task("docs", move |stop| docs.follow(documented, stop))
        .task("reload", move |stop| reload(tables, table, console, stop))
        .task("admin", move |_| serve_admin(admin))
        .on_drain(async move { admins.stop().await })
        .build()?;
    Ok(server)
}

/// The services that some route leads to and that have no replica, sorted.
fn unserved(table: &Table) -> BTreeSet<String> {
    let unserved = table.routes.iter().filter(|route| !route.pool.is_available());
    unserved.map(|route| route.entry.service.clone()).collect()
}

/// Makes tables out of the file, with one pool and one load for each service.
struct Tables {
    file: PathBuf,
    stack: Stack,
    registrations: Arc<Registrations>,
    loads: Mutex<BTreeMap<String, Arc<Load>>>,
}

impl Tables {
    fn new(
        file: PathBuf,
        replica: &Replica,
        stack: StackConfig,
        registrations: Arc<Registrations>,
    ) -> Rc<Self> {
        let stack = Stack::with_settings(replica, stack, settings());
        Rc::new(Self { file, stack, registrations, loads: Mutex::default() })
    }

    fn read(&self) -> Result<Table, String> {
        let file = self.file.display();
        let text = std::fs::read_to_string(&self.file).map_err(|error| format!("{file}: {error}"))?;
        let table = Table::read(&text, |service| self.pool(service), |service| self.load(service));
        table.map_err(|why| format!("{file}: {why}"))
    }

    fn pool(&self, service: &str) -> Arc<Pool> {
        if self.registrations.is_authoritative() {
            return self.registrations.pool(service);
        }
        let pool = self.stack.pool(service);
        self.registrations.track(pool.clone());
        pool
    }

    fn load(&self, service: &str) -> Arc<Load> {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        loads.entry(service.to_owned()).or_insert_with(|| Arc::new(Load::new(Instant::now()))).clone()
    }

    /// A client of each service behind the routes.
    fn clients(&self, table: &Table) -> Vec<ServiceClient> {
        let services: BTreeSet<_> = table.routes.iter().map(|route| route.entry.service.clone()).collect();
        services.iter().map(|service| ServiceClient::new(self.pool(service), self.stack.tokens())).collect()
    }
}

/// Reads the file again at each SIGHUP; a bad one is refused, and the old one stays.
async fn reload(tables: Rc<Tables>, table: Arc<ArcSwap<Table>>, console: web::Data<Console>, stop: Stop) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return log::error!(error:%; "SIGHUP cannot be received"),
    };
    while !stop.is_requested() {
        tokio::select! {
            _ = hangups.recv() => {}
            () = stop.requested() => return,
        }
        let refused = match tables.read() {
            Ok(new) => {
                log::info!(hash = new.hash; "the routes were read again");
                new.take_switches_of(&table.load());
                table.store(Arc::new(new));
                None
            }
            Err(why) => {
                log::error!(why; "the routes were not read: the old ones stay");
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
