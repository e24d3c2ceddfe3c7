//! Binds the port. This comes first in every program, so that everything made later knows its replica
//! (name and address).

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::connection::ClientLimits;
use crate::config::Vars;
use crate::lab::Lab;
use crate::otlp::OtlpConfig;

/// The configuration of a listener.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    pub host: String,
    /// 0 picks a free port.
    pub port: u16,
    /// Name of this replica; `$HOSTNAME-<port>` if absent.
    pub instance: Option<String>,
    /// How long a draining program still accepts connections, so that load balancers notice.
    pub drain_grace: Duration,
    /// How long running requests may take after the grace time.
    pub drain_limit: Duration,
    /// The machine's name: part of the replica's default name, and of its URL if it listens on all addresses.
    pub hostname: String,
    /// The limits of one client.
    pub limits: ClientLimits,
    /// Connections of all clients.
    pub max_connections: usize,
    /// Where spans and log lines are exported to; without it, no spans are recorded.
    pub otlp: Option<OtlpConfig>,
    /// The lab; `None` without `LAB=on`.
    pub lab: Option<Lab>,
}

impl HttpConfig {
    /// Reads `HOST`, `PORT`, `INSTANCE`, `HOSTNAME`, `DRAIN_GRACE`, `DRAIN_LIMIT`, `HEAD_TIMEOUT`, `HEAD_SIZE`,
    /// `MIN_RATE`, `MIN_RATE_AFTER`, `MAX_CONNECTIONS`, `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER_ARG`,
    /// `OTEL_LOGS_EXPORTER` and `LAB`.
    pub fn from_vars(vars: &mut Vars, default_port: &str) -> Self {
        Self {
            host: vars.or("HOST", "127.0.0.1", "address to listen on"),
            port: vars.or("PORT", default_port, "port to listen on; 0 picks a free one"),
            instance: vars.optional("INSTANCE", "name of this replica; HOSTNAME-PORT if absent"),
            drain_grace: vars.or("DRAIN_GRACE", "5s", "how long to go on accepting after SIGTERM"),
            drain_limit: vars.or("DRAIN_LIMIT", "30s", "how long running requests may take after that"),
            hostname: vars.or("HOSTNAME", "localhost", "name of this machine"),
            limits: ClientLimits {
                head_timeout: vars.or("HEAD_TIMEOUT", "5s", "how long the head of a request may take"),
                head_size: vars.or("HEAD_SIZE", "32768", "largest head of a request, in bytes"),
                min_rate: vars.or("MIN_RATE", "1024", "slowest client, in bytes per second"),
                grace: vars.or("MIN_RATE_AFTER", "5s", "how long to wait for a client before that counts"),
            },
            max_connections: vars.or("MAX_CONNECTIONS", "4096", "most connections of all clients"),
            otlp: OtlpConfig::from_vars(vars),
            lab: Lab::from_vars(vars),
        }
    }

    /// A free port on loopback, and no grace time.
    #[cfg(any(test, feature = "testing"))]
    pub fn for_tests() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 0,
            instance: None,
            drain_grace: Duration::ZERO,
            drain_limit: Duration::from_secs(5),
            hostname: "test".to_owned(),
            limits: ClientLimits {
                head_timeout: Duration::from_secs(5),
                head_size: 32 * 1024,
                min_rate: 1024,
                grace: Duration::from_secs(5),
            },
            max_connections: 4096,
            otlp: None,
            lab: None,
        }
    }
}

/// One running process of a service.
#[derive(Debug, Clone)]
pub struct Replica {
    pub service: &'static str,
    /// Name of the replica, unique within the service.
    pub instance: String,
    pub address: SocketAddr,
    pub hostname: String,
}

impl Replica {
    /// The base URL for other services: the listening address, or the host name if it listens on all addresses.
    pub fn url(&self) -> String {
        match self.address.ip().is_unspecified() {
            true => format!("http://{}:{}", self.hostname, self.address.port()),
            false => format!("http://{}", self.address),
        }
    }
}

/// A bound port. It refuses connections until [`Service::build`](super::Service::build).
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    replica: Replica,
    pub(super) config: HttpConfig,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    address: String,
    source: std::io::Error,
}

/// Connections that the kernel queues; the standard library's 128 overflow in a burst.
const BACKLOG: i32 = 4096;

impl Listener {
    pub fn bind(service: &'static str, config: HttpConfig) -> Result<Self, BindError> {
        Self::with_socket(service, config, false)
    }

    /// Sets `SO_REUSEPORT`: a new process can bind the same port before this one ends.
    pub fn bind_shared(service: &'static str, config: HttpConfig) -> Result<Self, BindError> {
        Self::with_socket(service, config, true)
    }

    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    fn with_socket(service: &'static str, config: HttpConfig, reuse_port: bool) -> Result<Self, BindError> {
        let HttpConfig { host, port, hostname, .. } = &config;
        let (socket, address) = bind(host, *port, reuse_port)
            .map_err(|source| BindError { address: format!("{host}:{port}"), source })?;
        let instance = config.instance.clone().unwrap_or_else(|| format!("{hostname}-{}", address.port()));
        let replica = Replica { service, instance, address, hostname: hostname.clone() };
        Ok(Self { socket, replica, config })
    }

    pub(super) fn listen(self) -> Result<(TcpListener, Replica), BindError> {
        let address = self.replica.address.to_string();
        self.socket.listen(BACKLOG).map_err(|source| BindError { address, source })?;
        Ok((self.socket.into(), self.replica))
    }
}

fn bind(host: &str, port: u16, reuse_port: bool) -> std::io::Result<(Socket, SocketAddr)> {
    let resolved = std::net::ToSocketAddrs::to_socket_addrs(&(host, port))?.next();
    let address = resolved.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?.as_socket().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_replica_is_its_listening_address_or_its_host_name() {
        for (address, url) in [
            ("127.0.0.1:3001", "http://127.0.0.1:3001"),
            ("[::1]:3001", "http://[::1]:3001"),
            ("0.0.0.0:3001", "http://a-host:3001"),
            ("[::]:3001", "http://a-host:3001"),
        ] {
            let (service, address) = ("a-service", address.parse().unwrap());
            let replica =
                Replica { service, instance: String::new(), address, hostname: "a-host".to_owned() };
            assert_eq!(replica.url(), url);
        }
    }

    #[test]
    fn a_bound_port_is_known_and_refuses_connections_until_the_service_is_built() {
        let listener = Listener::bind("a-service", HttpConfig::for_tests()).unwrap();
        let address = listener.replica().address;
        assert_ne!(address.port(), 0);
        assert!(std::net::TcpStream::connect(address).is_err());
        let (_listening, _) = listener.listen().unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
    }
}
