//! Tests of registries over real connections. For `memory://` they use a minimal server with [`Leases`].

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::web::{self, Data, Json, Path};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use serde_json::{Value, json};

use super::*;
use crate::auth::ServiceKeys;
use crate::balancer::{Pool, Settings};
use crate::stop::Stop;
use crate::testing::Keys;

/// State of the minimal registry server.
#[derive(Default)]
struct Server {
    leases: Mutex<Leases>,
    /// Number of queries.
    queries: AtomicUsize,
    /// Number of registrations received.
    registrations: AtomicUsize,
    /// Registrations wait for this.
    gate: tokio::sync::RwLock<()>,
}

type State = Data<Server>;

impl Server {
    fn register(&self, instance: Instance) {
        self.leases.lock().unwrap().register("a-service", instance, Instant::now());
    }

    fn instances(&self) -> Vec<Instance> {
        self.leases.lock().unwrap().instances("a-service")
    }
}

fn keys() -> ServiceKeys {
    Keys::from_seed("an-issuer", [7; 32]).service("a-service", &["a-service"])
}

fn tokens() -> TokenSource {
    TokenSource::new("a-service", keys())
}

fn is_service(request: &HttpRequest) -> bool {
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let token = header.and_then(|header| crate::auth::bearer(header).ok());
    token.is_some_and(|token| keys().verify(token, "gateway").is_ok())
}

async fn put(
    request: HttpRequest,
    path: Path<(String, String)>,
    body: Json<Value>,
    kept: State,
) -> HttpResponse {
    if !is_service(&request) {
        return HttpResponse::Unauthorized().finish();
    }
    kept.registrations.fetch_add(1, Ordering::Relaxed);
    let _open = kept.gate.read().await;
    let metadata = serde_json::from_value(body["metadata"].clone()).unwrap();
    let instance = Instance { metadata, ..Instance::new(&path.1, body["url"].as_str().unwrap()) };
    kept.leases.lock().unwrap().register(&path.0, instance, Instant::now());
    HttpResponse::Ok().json(json!({ "lease_s": LEASE.as_secs() }))
}

async fn delete(request: HttpRequest, path: Path<(String, String)>, kept: State) -> HttpResponse {
    match is_service(&request) && kept.leases.lock().unwrap().deregister(&path.0, &path.1) {
        true => HttpResponse::NoContent().finish(),
        false => HttpResponse::NotFound().finish(),
    }
}

async fn get(name: Path<String>, kept: State) -> HttpResponse {
    kept.queries.fetch_add(1, Ordering::Relaxed);
    HttpResponse::Ok().json(json!({ "instances": kept.leases.lock().unwrap().instances(&name) }))
}

/// Starts a registry at `address`; returns its address and handle.
fn run(address: &str, kept: &State) -> (String, ServerHandle) {
    let kept = kept.clone();
    let app = move || {
        let instance = web::resource("/registry/services/{name}/instances/{id}");
        App::new()
            .app_data(kept.clone())
            .service(instance.put(put).delete(delete))
            .route("/registry/services/{name}", web::get().to(get))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().bind(address).unwrap();
    let address = server.addrs()[0].to_string();
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (address, handle)
}

fn client(address: &str) -> Rc<dyn Registry> {
    Rc::new(MemoryRegistry::new(address, tokens()))
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn known(pool: &Pool) -> usize {
    pool.snapshot(Instant::now()).len()
}

#[actix_web::test]
async fn the_registry_in_memory_keeps_its_promises() {
    let (address, _server) = run("127.0.0.1:0", &State::default());
    conformance::keeps_its_promises(&*client(&address), "conformance").await;
}

#[actix_web::test]
async fn a_registration_without_a_service_token_is_refused() {
    let (address, _server) = run("127.0.0.1:0", &State::default());
    let other = TokenSource::new("a-service", Keys::new("an-issuer").service("a-service", &[]));
    let instance = Instance::new("1", "http://127.0.0.1:1");
    let refused = MemoryRegistry::new(&address, other).register("a-service", &instance).await;
    assert!(matches!(refused, Err(RegistryError::Refused(_))), "{refused:?}");
}

#[actix_web::test]
async fn during_an_outage_or_data_loss_of_the_registry_the_last_known_replicas_stay() {
    let kept = State::default();
    kept.register(Instance::new("1", "http://127.0.0.1:1"));
    let (address, server) = run("127.0.0.1:0", &kept);
    let registry = client(&address);
    let pool = Directory::new(registry.clone(), Settings::default()).watch("a-service");
    until("the replica is found", || known(&pool) == 1).await;

    server.stop(false).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    // Its workers may answer once more.
    while registry.instances("a-service", None).await.is_ok() {
        assert!(Instant::now() < deadline, "it is away");
    }
    assert_eq!(known(&pool), 1);

    let empty = State::default();
    let (_, _server) = run(&address, &empty);
    until("the directory asks the one that has forgotten", || empty.queries.load(Ordering::Relaxed) > 1)
        .await;
    assert_eq!(known(&pool), 1);
    for id in ["1", "2"] {
        empty.register(Instance::new(id, &format!("http://127.0.0.1:{id}")));
    }
    until("the newcomer is found", || known(&pool) == 2).await;
}

#[actix_web::test]
async fn a_replica_registers_when_the_registry_comes_up_and_leaves_when_it_stops() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let instance = Instance::new("1", "http://127.0.0.1:1");
    let heartbeat = Heartbeat::new(client(&address), "a-service", instance.clone());
    let (stopper, stop) = Stop::pair();
    let running = actix_web::rt::spawn(heartbeat.clone().run(stop));
    drop(listener.accept().await.unwrap());
    drop(listener);

    let kept = State::default();
    let (_, _server) = run(&address, &kept);
    until("it registers", || kept.instances() == [instance.clone()]).await;
    stopper.stop();
    heartbeat.leave().await;
    running.await.unwrap();
    assert_eq!(kept.instances(), []);
}

#[actix_web::test]
async fn a_renewal_in_flight_does_not_undo_a_deregistration() {
    let kept = State::default();
    let (address, _server) = run("127.0.0.1:0", &kept);
    let shut = kept.gate.write().await;
    let heartbeat = Heartbeat::new(client(&address), "a-service", Instance::new("1", "http://127.0.0.1:1"));
    let (stopper, stop) = Stop::pair();
    let running = actix_web::rt::spawn(heartbeat.clone().run(stop));
    until("it registers", || kept.registrations.load(Ordering::Relaxed) == 1).await;
    stopper.stop();
    let mut leaving = actix_web::rt::spawn(heartbeat.leave());
    let left = tokio::time::timeout(Duration::from_millis(100), &mut leaving).await;
    assert!(left.is_err(), "it does not overtake its own registration");
    drop(shut);
    leaving.await.unwrap();
    running.await.unwrap();
    assert_eq!(kept.instances(), []);
}

#[test]
fn the_url_selects_the_registry() {
    assert_eq!(RegistryUrl::parse("memory://h:9090"), Ok(RegistryUrl::Memory("h:9090".to_owned())));
    assert!(matches!(RegistryUrl::parse("static://a=http://h:1"), Ok(RegistryUrl::Static(_))));
    assert!(matches!(RegistryUrl::parse("dns://a=h:1"), Ok(RegistryUrl::Dns(_))));
    for consul in ["consul://h:8500", "consul://h:8500/", "consul://[::1]:8500/shop-2"] {
        assert!(matches!(RegistryUrl::parse(consul), Ok(RegistryUrl::Consul(_))), "{consul}");
    }
    for bad in [
        "",
        "memory://",
        "memory://h:x",
        "memory://h/path",
        "static://a=h:1",
        "dns://a",
        "consul://",
        "consul://h:x",
        "consul://h:1/a/b",
        "consul://h:1/a?b",
        "zookeeper://h:1",
    ] {
        assert!(RegistryUrl::parse(bad).is_err(), "{bad}");
    }
}
