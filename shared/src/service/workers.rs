//! Accepts connections, and serves each on one of a few threads.
//!
//! actix-server does this too, but it cannot close its listener before its last request ends, and it does not
//! limit the connections of one client (ADR 11).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_rt::Arbiter;
use futures_util::future::LocalBoxFuture;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::connection::IdleConnections;
use crate::metrics;
use crate::stop::Stop;

/// Serves one connection to its end.
pub(super) type Serve = Rc<dyn Fn(TcpStream, SocketAddr) -> LocalBoxFuture<'static, ()>>;
/// Makes a worker's [`Serve`], on its thread.
pub(super) type MakeServe = dyn Fn(Rc<IdleConnections>) -> LocalBoxFuture<'static, Serve> + Send + Sync;

/// How many connections a program has, and each client.
pub(super) struct Connections {
    max: usize,
    per_client: Option<PerClient>,
    open: AtomicUsize,
    by_client: Mutex<BTreeMap<IpAddr, usize>>,
}

/// The limit of one client. A client is an IPv4 address or an IPv6 network of 64 bits.
pub(super) struct PerClient {
    pub(super) max: usize,
    /// Clients without a limit, such as trusted proxies.
    pub(super) is_exempt: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

/// Above this part of all connections, idle ones are closed, and each client has an equal share.
const PRESSURE: f64 = 0.9;

/// One connection, counted until it is dropped.
struct Counted {
    connections: Arc<Connections>,
    client: Option<IpAddr>,
}

impl Connections {
    pub(super) fn new(max: usize, per_client: Option<PerClient>) -> Arc<Self> {
        Arc::new(Self { max, per_client, open: AtomicUsize::new(0), by_client: Mutex::default() })
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.open() >= self.max
    }

    fn is_under_pressure(&self) -> bool {
        self.open() as f64 >= self.max as f64 * PRESSURE
    }

    /// `None` if a limit is reached.
    fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Counted> {
        if self.is_full() {
            metrics::refused_connection("all");
            return None;
        }
        let limit = self.per_client.as_ref().filter(|limit| !(limit.is_exempt)(peer));
        let client = limit.map(|_| network(peer));
        if let (Some(limit), Some(client)) = (limit, client) {
            let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
            let open = by_client.get(&client).copied().unwrap_or(0);
            // All shares together fit, so that a new client finds room whatever the others do.
            let clients = by_client.len() + usize::from(open == 0);
            let share = if self.is_under_pressure() { (self.max / clients).max(1) } else { usize::MAX };
            if open >= limit.max.min(share) {
                metrics::refused_connection("client");
                return None;
            }
            by_client.insert(client, open + 1);
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Counted { connections: self.clone(), client })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let mut by_client = self.connections.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = by_client.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                by_client.remove(&client);
            }
        }
    }
}

/// The client that `address` stands for. One person usually has a whole IPv6 network of 64 bits.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into()),
        address => address,
    }
}

enum Command {
    Serve(TcpStream, SocketAddr, Counted),
    EvictIdle,
}

/// The threads.
pub(super) struct Workers {
    connections: Arc<Connections>,
    workers: Vec<Worker>,
    next: usize,
    next_to_evict: usize,
}

struct Worker {
    arbiter: Arbiter,
    commands: UnboundedSender<Command>,
}

impl Workers {
    pub(super) fn start(threads: usize, connections: Arc<Connections>, make: Arc<MakeServe>) -> Self {
        let worker = |_| {
            let (commands, received) = unbounded_channel();
            let (arbiter, make) = (Arbiter::new(), make.clone());
            arbiter.spawn_fn(move || {
                actix_web::rt::spawn(work(make, received));
            });
            Worker { arbiter, commands }
        };
        Self { connections, workers: (0..threads).map(worker).collect(), next: 0, next_to_evict: 0 }
    }

    /// Accepts connections until `closing`. Then it accepts those that wait in the kernel's queue, and closes the
    /// listener: a process that listens to the same port gets all others.
    pub(super) async fn accept(mut self, listener: TcpListener, closing: Stop) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        while !closing.is_requested() {
            tokio::select! {
                accepted = listener.accept() => {
                    let accepted = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
                    self.handle(accepted).await;
                }
                () = closing.requested() => {}
            }
        }
        let listener = listener.into_std()?;
        while let Ok(accepted) = listener.accept() {
            self.handle(Ok(accepted)).await;
        }
        Ok(self)
    }

    async fn handle(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => self.serve(stream, peer),
            // Mostly: no descriptor is free. The connection stays in the kernel's queue.
            Err(error) => {
                metrics::refused_connection("error");
                log::warn!(error:%; "a connection cannot be accepted");
                self.evict_one();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    fn serve(&mut self, stream: TcpStream, peer: SocketAddr) {
        let counted = self.connections.enter(peer.ip());
        // Who has its share already is refused, and closes nobody's connection.
        let needs_room = counted.is_some() || self.connections.is_full();
        if needs_room && self.connections.is_under_pressure() {
            self.evict_one();
        }
        if let Some(counted) = counted {
            self.next = (self.next + 1) % self.workers.len();
            self.send(self.next, Command::Serve(stream, peer, counted));
        }
    }

    /// In each worker in turn: one of them may have no idle connection.
    fn evict_one(&mut self) {
        self.next_to_evict = (self.next_to_evict + 1) % self.workers.len();
        self.send(self.next_to_evict, Command::EvictIdle);
    }

    fn send(&self, worker: usize, command: Command) {
        if self.workers[worker].commands.send(command).is_err() {
            log::error!("a worker thread has died");
        }
    }

    /// Closes what is still open.
    pub(super) fn stop(self) {
        for worker in self.workers {
            worker.arbiter.stop();
        }
    }
}

async fn work(make: Arc<MakeServe>, mut commands: UnboundedReceiver<Command>) {
    let idle = Rc::new(IdleConnections::default());
    let serve = make(idle.clone()).await;
    while let Some(command) = commands.recv().await {
        match command {
            Command::Serve(stream, peer, counted) => {
                let serving = serve(stream, peer);
                actix_web::rt::spawn(async move {
                    serving.await;
                    drop(counted);
                });
            }
            Command::EvictIdle => idle.evict(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: usize, per_client: usize) -> Arc<Connections> {
        let is_exempt = |client: IpAddr| client.is_loopback();
        Connections::new(max, Some(PerClient { max: per_client, is_exempt: Box::new(is_exempt) }))
    }

    #[test]
    fn a_client_has_a_limited_number_of_connections_and_an_ipv6_network_is_one_client() {
        let connections = connections(100, 2);
        let enter = |peer: &str| connections.enter(peer.parse().unwrap());
        let (first, _second) = (enter("192.0.2.1").unwrap(), enter("192.0.2.1").unwrap());
        assert!(enter("192.0.2.1").is_none());
        let _other = enter("192.0.2.2").unwrap();
        let _neighbours = (enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap());
        assert!(enter("2001:db8::ffff:3").is_none());
        assert!(enter("2001:db8:0:1::1").is_some());
        let _exempt: Vec<_> = (0..10).map(|_| enter("127.0.0.1").unwrap()).collect();
        drop(first);
        assert!(enter("192.0.2.1").is_some());
    }

    #[test]
    fn when_connections_are_scarce_each_client_has_an_equal_share() {
        let connections = connections(20, 20);
        let enter = |peer: &str| connections.enter(peer.parse().unwrap());
        let _greedy: Vec<_> = (0..18).map(|_| enter("192.0.2.1").unwrap()).collect();
        let _other = enter("192.0.2.2").unwrap();
        assert!(enter("192.0.2.1").is_none());
        assert!(enter("192.0.2.3").is_some());
    }

    #[test]
    fn all_clients_together_have_a_limited_number_of_connections() {
        let connections = connections(3, 2);
        let enter = |peer: &str| connections.enter(peer.parse().unwrap());
        let held = (enter("127.0.0.1").unwrap(), enter("192.0.2.1").unwrap(), enter("192.0.2.2").unwrap());
        assert!(enter("127.0.0.1").is_none());
        drop(held);
        assert_eq!(connections.open(), 0);
        assert!(connections.by_client.lock().unwrap().is_empty());
    }
}
