//! Tests with the real Consul at `TEST_CONSUL_URL`.

use std::future::Future;
use std::rc::Rc;
use std::time::Instant;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};

use super::*;
use crate::balancer::{Pool, Settings};
use crate::registry::conformance::{found, keeps_its_promises, replica};
use crate::registry::{Directory, Heartbeat};
use crate::stop::Stop;
use crate::testing::{Gate, consul_url};

/// The Consul for tests, with a new prefix.
fn consul() -> Option<ConsulRegistry> {
    let url = consul_url()?;
    Some(url.strip_prefix("consul://").unwrap().parse().unwrap())
}

/// Polls. Consul checks a replica every 10 s, so this may take long.
async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn known(pool: &Pool) -> usize {
    pool.snapshot(Instant::now()).len()
}

#[actix_web::test]
async fn consul_keeps_the_promises_of_every_registry() {
    let Some(consul) = consul() else { return };
    keeps_its_promises(&consul, "conformance").await;
}

#[actix_web::test]
async fn systems_with_different_prefixes_do_not_see_each_other() {
    let (Some(ours), Some(theirs)) = (consul(), consul()) else { return };
    let (one, _running) = replica("one").await;
    ours.register("a-service", &one).await.unwrap();
    assert_eq!(found(&ours, "a-service", 1).await, [one]);
    assert_eq!(theirs.instances("a-service", None).await.unwrap().instances, []);
    ours.deregister("a-service", "one").await.unwrap();
}

#[actix_web::test]
async fn a_forgotten_replica_registers_again_and_a_renewal_does_not_reset_its_check() {
    let Some(consul) = consul() else { return };
    let (one, _running) = replica("one").await;
    let check = async || {
        let answer = consul.call(Method::GET, "agent/checks", None, TIMEOUT).await.unwrap();
        let checks: BTreeMap<String, serde_json::Value> = parsed(&answer).unwrap();
        let ours = checks.into_iter().filter(|(_, check)| check["ServiceName"] == consul.name("a-service"));
        ours.map(|(id, _)| id).collect::<Vec<_>>()
    };
    consul.register("a-service", &one).await.unwrap();
    let first = check().await;
    assert_eq!(first.len(), 1);
    consul.register("a-service", &one).await.unwrap();
    assert_eq!(check().await, first);

    consul.deregister("a-service", "one").await.unwrap();
    assert_eq!(check().await, [] as [String; 0]);
    consul.register("a-service", &one).await.unwrap();
    assert_eq!(found(&consul, "a-service", 1).await, [one]);
    consul.deregister("a-service", "one").await.unwrap();
}

#[actix_web::test]
async fn a_replica_with_a_failing_check_is_listed_as_failing_and_a_restarted_one_is_not() {
    let Some(consul) = consul() else { return };
    let (one, running) = replica("one").await;
    consul.register("a-service", &one).await.unwrap();
    found(&consul, "a-service", 1).await;
    running.stop().await;
    until("it fails", || async {
        let found = consul.instances("a-service", None).await.unwrap();
        assert_eq!(found.instances, std::slice::from_ref(&one));
        found.failing.contains("one")
    })
    .await;

    let (again, _running) = replica("one").await;
    consul.register("a-service", &again).await.unwrap();
    let began = Instant::now();
    assert_eq!(found(&consul, "a-service", 1).await, [again]);
    assert!(consul.instances("a-service", None).await.unwrap().failing.is_empty());
    assert!(began.elapsed() < Duration::from_secs(1), "the critical status of its last run is not kept");
    consul.deregister("a-service", "one").await.unwrap();
}

#[actix_web::test]
async fn during_an_outage_of_consul_the_last_known_replicas_stay_and_new_ones_are_found_afterwards() {
    let Some(direct) = consul() else { return };
    let mut gate = Gate::before(&direct.address).await;
    let consul = Rc::new(ConsulRegistry { address: gate.address().to_string(), ..direct.clone() });
    let (one, _running) = replica("one").await;
    let heartbeat = Heartbeat::new(consul.clone(), "a-service", one);
    let (stopper, stop) = Stop::pair();
    let beating = actix_web::rt::spawn(heartbeat.clone().run(stop));
    let pool = Directory::new(consul.clone(), Settings::default()).watch("a-service");
    until("it is found", || async { known(&pool) == 1 }).await;

    gate.shut().await;
    assert!(consul.instances("a-service", None).await.is_err(), "it is away");
    direct.deregister("a-service", "one").await.unwrap();
    assert_eq!(known(&pool), 1);

    let (two, _running) = replica("two").await;
    direct.register("a-service", &two).await.unwrap();
    gate.open().await;
    until("both are found", || async { known(&pool) == 2 }).await;

    stopper.stop();
    heartbeat.leave().await;
    beating.await.unwrap();
    assert_eq!(found(&direct, "a-service", 1).await, [two]);
    direct.deregister("a-service", "two").await.unwrap();
}

#[actix_web::test]
async fn the_token_is_sent_and_consuls_error_is_returned() {
    async fn agent(request: HttpRequest) -> HttpResponse {
        match request.headers().get("x-consul-token").map(|token| token.as_bytes()) {
            Some(b"secret") => HttpResponse::Ok().insert_header(("x-consul-index", "7")).body("[]"),
            _ => HttpResponse::Forbidden().body("Permission denied"),
        }
    }
    let server = HttpServer::new(|| App::new().default_service(web::to(agent))).workers(1).disable_signals();
    let server = server.bind("127.0.0.1:0").unwrap();
    let consul: ConsulRegistry = server.addrs()[0].to_string().parse().unwrap();
    actix_web::rt::spawn(server.run());
    let refused = Err(RegistryError::Refused("403 Forbidden: Permission denied".to_owned()));
    assert_eq!(consul.instances("a-service", None).await, refused);
    let consul = consul.with_token(Some(Secret::new("secret")));
    assert_eq!(consul.instances("a-service", None).await.unwrap().version, 7);
}

#[test]
fn an_index_that_goes_backwards_is_reset_and_never_below_one() {
    assert_eq!(next(0, 7), 7);
    assert_eq!(next(7, 9), 9);
    assert_eq!(next(7, 7), 7, "the wait is over, and nothing has changed");
    assert_eq!(next(7, 3), 0);
    assert_eq!(next(0, 0), 1);
}

#[test]
fn ipv4_ipv6_and_host_names_survive_the_round_trip() {
    let consul: ConsulRegistry = "h:8500/shop".parse().unwrap();
    for url in ["http://127.0.0.1:3001", "http://[::1]:3001", "http://a-host:3001"] {
        let one = Instance::new("one", url).with("version", "1");
        let told = consul.registration("a-service", &one).unwrap();
        assert_eq!((told.id.as_str(), told.service.as_str()), ("shop-a-service-one", "shop-a-service"));
        assert!(!told.address.contains('['), "{}", told.address);
        let node = Node { address: "10.0.0.1".to_owned() };
        assert_eq!(instance(node, told), Some(one));
    }
}
