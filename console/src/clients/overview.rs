//! Everything that the map shows, fetched when a page asks. Pages that ask at the same time share one snapshot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all, join3};
use shared::http::{Call, exchange};

use super::admin::{Admin, Asker};
use super::gateway::Gateway;
use super::lab::{Lab, Replica};
use super::replicas::Replicas;
use crate::config::ORDERS;
use crate::domain::{Edge, Traffic};
use crate::tasks::writer::now_us;
use crate::views::map::{Attention, FaultView, Map, Seen};
use crate::views::traces::time;

/// The maximum age of a snapshot.
const FRESH: Duration = Duration::from_secs(1);
/// The same for what costs the services more: health checks, stuck sagas, dead letters.
const SLOW: Duration = Duration::from_secs(10);
const EXTERNAL_TIMEOUT: Duration = Duration::from_millis(700);

pub struct Overview {
    gateway: Gateway,
    replicas: Replicas,
    admin: Admin,
    /// Programs outside of the registry: name and base URL.
    externals: Vec<(String, String)>,
    has_registry: bool,
    traffic: Arc<Mutex<Traffic>>,
    lab: Option<Lab>,
    last: tokio::sync::Mutex<Last>,
}

#[derive(Default)]
struct Last {
    map: Option<(Instant, Arc<Map>)>,
    slow: Option<Instant>,
    attention: Vec<Attention>,
    seen: Seen,
    /// Requests of each replica, and when they were read.
    requests: BTreeMap<(String, String), (Instant, u64)>,
}

impl Overview {
    pub fn new(
        gateway: Gateway,
        replicas: Replicas,
        admin: Admin,
        externals: Vec<(String, String)>,
        has_registry: bool,
        traffic: Arc<Mutex<Traffic>>,
        lab: Option<Lab>,
    ) -> Self {
        Self { gateway, replicas, admin, externals, has_registry, traffic, lab, last: Default::default() }
    }

    pub async fn map(&self, asker: &Asker) -> Arc<Map> {
        let mut last = self.last.lock().await;
        if let Some((at, map)) = &last.map
            && at.elapsed() < FRESH
        {
            return map.clone();
        }
        let (services, routes) = join(self.gateway.services(), self.gateway.routes()).await;
        last.seen.is_gateway_here = services.is_ok() && routes.is_ok();
        if let (Ok(services), Ok(routes)) = (services, routes) {
            (last.seen.services, last.seen.routes) = (services, routes);
        }
        last.rate(Instant::now());
        if last.slow.is_none_or(|at| at.elapsed() >= SLOW) {
            self.look_closely(&mut last, asker).await;
        }
        last.seen.has_registry = self.has_registry;
        last.seen.edges = self.edges();
        let faults = match &self.lab {
            Some(lab) => Some(lab.replicas(asker).await.iter().flat_map(faults_of).collect()),
            None => None,
        };
        let map = Arc::new(Map { faults, ..Map::of(&last.seen, time(now_us()), last.attention.clone()) });
        last.map = Some((Instant::now(), map.clone()));
        map
    }

    /// Discards the snapshot after a change, so that the next one is new.
    pub async fn look_again(&self) {
        let mut last = self.last.lock().await;
        (last.map, last.slow) = (None, None);
    }

    pub fn edges(&self) -> Vec<Edge> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).edges(now_us())
    }

    async fn look_closely(&self, last: &mut Last, asker: &Asker) {
        let services = last.seen.services.clone();
        let all = services.iter().flat_map(|service| service.instances.iter().map(move |one| (service, one)));
        let health = all.map(async |(service, instance)| {
            let health = self.replicas.health(&service.name, &instance.url).await;
            ((service.name.clone(), instance.id.clone()), health)
        });
        let externals = self.externals.iter().map(async |(name, url)| {
            let call =
                Call::new(actix_web::http::Method::GET, format!("{url}/health/live"), EXTERNAL_TIMEOUT);
            (name.clone(), exchange(call).await.is_ok_and(|answer| answer.status.is_success()))
        });
        let (health, externals, attention) =
            join3(join_all(health), join_all(externals), self.attention(asker, &last.attention)).await;
        last.seen.health = health.into_iter().collect();
        last.seen.externals = externals.into_iter().collect();
        last.attention = attention;
        last.slow = Some(Instant::now());
    }

    /// What needs attention. If a service does not respond, its previous count stays.
    async fn attention(&self, asker: &Asker, last: &[Attention]) -> Vec<Attention> {
        let count = async |service: &str, path: &str, list: &str| {
            let answer = self.admin.read(service, path, asker).await;
            answer.and_then(|answer| answer[list].as_array().map(Vec::len))
        };
        let stuck = count(ORDERS, "/admin/sagas?state=stuck", "sagas");
        let names: Vec<_> = self.admin.names().collect();
        let dead = join_all(names.into_iter().map(|name| count(name, "/admin/dead-letters", "dead_letters")));
        let (stuck, dead) = join(stuck, dead).await;
        let all = [
            ("stuck_sagas", stuck, "/orders"),
            ("dead_letters", dead.into_iter().sum::<Option<usize>>(), "/messages"),
        ];
        let before =
            |code| last.iter().find(|attention| attention.code == code).map(|attention| attention.count);
        let all = all.into_iter().map(|(code, count, href)| {
            let count = count.or_else(|| before(code)).unwrap_or_default();
            Attention { code, count, href }
        });
        all.filter(|attention| attention.count > 0).collect()
    }
}

fn faults_of(replica: &Replica) -> impl Iterator<Item = FaultView> {
    replica.running.iter().map(|running| FaultView {
        program: replica.program.clone(),
        replica: replica.replica.clone(),
        fault: running.fault.clone(),
        left_s: running.left_s,
    })
}

impl Last {
    /// Computes the rate of each replica since the last look.
    fn rate(&mut self, now: Instant) {
        let mut requests = BTreeMap::new();
        let mut rates = BTreeMap::new();
        for service in &self.seen.services {
            for instance in &service.instances {
                let key = (service.name.clone(), instance.id.clone());
                if let Some((then, before)) = self.requests.get(&key) {
                    let seconds = now.saturating_duration_since(*then).as_secs_f64().max(0.001);
                    rates.insert(key.clone(), instance.requests.saturating_sub(*before) as f64 / seconds);
                }
                requests.insert(key, (now, instance.requests));
            }
        }
        (self.requests, self.seen.rates) = (requests, rates);
    }
}
