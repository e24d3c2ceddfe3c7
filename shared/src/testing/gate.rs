//! A TCP proxy in front of a server, with which tests make the server unavailable.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Forwards connections to a server while it is open. Needs a tokio runtime.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    target: String,
    serving: JoinSet<()>,
    stalled: watch::Sender<bool>,
}

impl Gate {
    /// An open gate in front of `target`: `host:port`, or the URL of a server.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub async fn before(target: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (serving, stalled) = (JoinSet::new(), watch::Sender::new(false));
        let mut gate = Self { address, target: authority(target).to_owned(), serving, stalled };
        gate.serve(listener);
        gate
    }

    /// The address to connect to instead of the server's.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's `url`, with this gate's address.
    pub fn url(&self, url: &str) -> String {
        url.replacen(authority(url), &self.address.to_string(), 1)
    }

    /// Closes every connection and refuses new ones, as if the server had crashed.
    pub async fn shut(&mut self) {
        self.serving.shutdown().await;
    }

    /// Silently drops all traffic, as if the network had failed. Existing connections never work again.
    pub fn stall(&self) {
        self.stalled.send_replace(true);
    }

    /// Forwards new connections again.
    ///
    /// # Panics
    /// When another program has taken the port.
    pub async fn open(&mut self) {
        self.stalled.send_replace(false);
        if self.serving.is_empty() {
            let listener = TcpListener::bind(self.address).await.expect("the port is still free");
            self.serve(listener);
        }
    }

    fn serve(&mut self, listener: TcpListener) {
        let (target, mut stalled) = (self.target.clone(), self.stalled.subscribe());
        self.serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await
                && stalled.wait_for(|stalled| !stalled).await.is_ok()
            {
                connections.spawn(forward(client, target.clone(), stalled.clone()));
            }
        });
    }
}

/// Forwards a connection until either side ends it; drops its traffic when the gate stalls.
async fn forward(mut client: TcpStream, target: String, mut stalled: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let stalls = async { stalled.wait_for(|stalled| *stalled).await.is_ok() };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = stalls => pending().await,
    }
}

/// `host:port` of a URL, or the text itself.
fn authority(target: &str) -> &str {
    let rest = target.split_once("://").map_or(target, |(_, rest)| rest);
    let rest = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    rest.rsplit_once('@').map_or(rest, |(_, authority)| authority)
}
