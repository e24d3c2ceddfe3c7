//! Every variable.

use shared::config::{ConfigError, Vars};
use shared::db::DbConfig;
use shared::platform::PlatformConfig;
use shared::service::HttpConfig;
use url::Url;

/// The name of this program.
pub const SERVICE: &str = env!("CARGO_PKG_NAME");
/// The services that it calls by name.
pub const USERS: &str = "user-service";
pub const ORDERS: &str = "order-service";
pub const PAYMENTS: &str = "payment-service";
/// The permitted calls and events (`calls.txt`).
pub const CALLS: &str = include_str!("../../calls.txt");

pub struct Config {
    /// The listener of pages.
    pub http: HttpConfig,
    /// The listener of traces and logs.
    pub otlp: HttpConfig,
    pub platform: PlatformConfig,
    pub database: DbConfig,
    /// Names under which browsers and programs may ask this program, beside addresses and names without dots.
    pub hosts: Vec<String>,
    /// The upper limit of the used pages of the database, in bytes.
    pub max_bytes: i64,
    /// The gateway's admin port.
    pub gateway: Url,
    /// The gateway's port for clients, which the customers of the lab use.
    pub public_gateway: Url,
    /// The simulated card network, for its statement.
    pub card_network: Option<Url>,
    /// Whether this console shows the lab. The other programs need `LAB=on`, too.
    pub has_lab: bool,
}

impl Config {
    /// Reads every variable; the error names all that are missing or bad.
    pub fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        // It would export the spans of receiving spans.
        let mut http = HttpConfig { otlp: None, ..HttpConfig::from_vars(&mut vars, "3051") };
        // Faults are started and ended here, so this program has none.
        let has_lab = http.lab.take().is_some();
        let otlp = HttpConfig {
            host: vars.or("OTLP_HOST", "127.0.0.1", "address that traces and logs are received on"),
            port: vars.or("OTLP_PORT", "4318", "port for traces and logs: OTLP, HTTP"),
            ..http.clone()
        };
        let database = DbConfig::from_vars(&mut vars, "sqlite://data/console.db");
        if !database.url.starts_with("sqlite:") {
            vars.reject("DATABASE_URL must start with sqlite:// here");
        }
        let hosts: String =
            vars.or("CONSOLE_HOSTS", "", "names of this program for browsers, with commas between them");
        let hosts =
            hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned).collect();
        let max_mib: u32 = vars.or("MAX_MIB", "180", "most MiB of traces and logs; the oldest are deleted");
        let gateway: Url = vars.or("GATEWAY_ADMIN_URL", "http://127.0.0.1:9090", "the gateway's admin port");
        let public_gateway: Url =
            vars.or("GATEWAY_URL", "http://127.0.0.1:8080", "the gateway, for the customers of the lab");
        let card_network = vars.optional("CARD_NETWORK_URL", "the simulated card network, for its statement");
        let platform = PlatformConfig::from_vars(&mut vars, CALLS);
        let max_bytes = i64::from(max_mib) * 1024 * 1024;
        vars.finish(platform.map(|platform| Self {
            http,
            otlp,
            platform,
            database,
            hosts,
            max_bytes,
            gateway,
            public_gateway,
            card_network,
            has_lab,
        }))
    }
}
