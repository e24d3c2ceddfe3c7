//! Counts connections, or requests over HTTP/2, in total and of each client. A client is an IPv4 address
//! or an IPv6 network of 64 bits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module.
pub(super) struct Shares {
    max: usize,
    per_client: Option<Arc<PerClient>>,
    open: AtomicUsize,
    by_client: Mutex<BTreeMap<IpAddr, usize>>,
}

/// The limit of one client.
pub(super) struct PerClient {
    pub(super) max: usize,
    /// Clients without a limit, such as trusted proxies.
    pub(super) is_exempt: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

/// Above this part of the maximum, idle connections are closed, and each client has an equal share.
const PRESSURE: f64 = 0.9;

/// One connection or request, counted until it is dropped.
pub(super) struct Share {
    shares: Arc<Shares>,
    client: Option<IpAddr>,
}

/// The limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    All,
    Client,
}

impl Shares {
    pub(super) fn new(max: usize, per_client: Option<Arc<PerClient>>) -> Arc<Self> {
        Arc::new(Self { max, per_client, open: AtomicUsize::new(0), by_client: Mutex::default() })
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn is_under_pressure(&self) -> bool {
        self.open() as f64 >= self.max as f64 * PRESSURE
    }

    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Share, Full> {
        if self.open() >= self.max {
            return Err(Full::All);
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
                return Err(Full::Client);
            }
            by_client.insert(client, open + 1);
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Share { shares: self.clone(), client })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.open.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let mut by_client = self.shares.by_client.lock().unwrap_or_else(PoisonError::into_inner);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: usize, per_client: usize) -> Arc<Shares> {
        let is_exempt = |client: IpAddr| client.is_loopback();
        let per_client = PerClient { max: per_client, is_exempt: Box::new(is_exempt) };
        Shares::new(max, Some(Arc::new(per_client)))
    }

    #[test]
    fn a_client_has_a_limited_number_of_connections_and_an_ipv6_network_is_one_client() {
        let connections = connections(100, 2);
        let enter = |peer: &str| connections.enter(peer.parse().unwrap());
        let (first, _second) = (enter("192.0.2.1").unwrap(), enter("192.0.2.1").unwrap());
        assert!(enter("192.0.2.1").is_err());
        let _other = enter("192.0.2.2").unwrap();
        let _neighbours = (enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap());
        assert!(enter("2001:db8::ffff:3").is_err());
        assert!(enter("2001:db8:0:1::1").is_ok());
        let _exempt: Vec<_> = (0..10).map(|_| enter("127.0.0.1").unwrap()).collect();
        drop(first);
        assert!(enter("192.0.2.1").is_ok());
    }

    #[test]
    fn when_connections_are_scarce_each_client_has_an_equal_share() {
        let connections = connections(20, 20);
        let enter = |peer: &str| connections.enter(peer.parse().unwrap());
        let _greedy: Vec<_> = (0..18).map(|_| enter("192.0.2.1").unwrap()).collect();
        let _other = enter("192.0.2.2").unwrap();
        assert!(enter("192.0.2.1").is_err());
        assert!(enter("192.0.2.3").is_ok());
    }

    #[test]
    fn all_clients_together_have_a_limited_number_of_connections() {
        let connections = connections(3, 2);
        let enter = |peer: &str| connections.enter(peer.parse().unwrap());
        let held = (enter("127.0.0.1").unwrap(), enter("192.0.2.1").unwrap(), enter("192.0.2.2").unwrap());
        assert!(enter("127.0.0.1").is_err());
        drop(held);
        assert_eq!(connections.open(), 0);
        assert!(connections.by_client.lock().unwrap().is_empty());
    }
}
