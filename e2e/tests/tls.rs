//! Mutual TLS between the programs: who has no good certificate, or another's name, is refused.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, web};
use e2e::{PASSWORD, Stack};
use futures_util::future::join_all;
use serde_json::json;
use shared::config::Vars;
use shared::http::{Call, ExchangeError, exchange};
use shared::service::{HttpConfig, Service};
use shared::testing::{eventually, run};
use shared::tls::Tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use xtask::{Authority, Kind, Replica, programs};

const HOUR: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(5);

/// A folder with the certificates of one authority.
struct Certificates {
    folder: PathBuf,
    authority: Authority,
}

impl Certificates {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("tls-{}", uuid::Uuid::now_v7()));
        Self { authority: Authority::open(&folder.join("authority")).unwrap(), folder }
    }

    /// The certificates of all programs, and the value of `TLS_FOLDER` for them.
    fn of_all_programs() -> (Self, String) {
        let certificates = Self::new();
        for program in programs().iter().filter(|program| program.kind != Kind::External) {
            certificates.replace(program.name, program.name);
        }
        let variable = format!("{}/{{program}}", certificates.folder.display());
        (certificates, variable)
    }

    /// Makes a new certificate for `name` in `folder`.
    fn replace(&self, folder: &str, name: &str) -> PathBuf {
        let folder = self.folder.join(folder);
        self.authority.certify(&[name], SystemTime::now() + HOUR, &folder).unwrap();
        folder
    }

    /// A client with a certificate for `name`.
    fn client(&self, name: &str) -> Tls {
        open(&self.replace(&format!("client-{}", uuid::Uuid::now_v7()), name))
    }

    /// A client that believes this authority and has a certificate of another one, or one that expires at `until`.
    fn bad_client(&self, authority: &Authority, until: SystemTime) -> Tls {
        let folder = self.replace("bad-client", "gateway");
        let ca = std::fs::read(folder.join("ca.crt")).unwrap();
        authority.certify(&["gateway"], until, &folder).unwrap();
        std::fs::write(folder.join("ca.crt"), ca).unwrap();
        open(&folder)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn open(folder: &Path) -> Tls {
    let mut vars = Vars::from_pairs([("TLS_FOLDER", folder.to_str().unwrap())]);
    let tls = Tls::from_vars(&mut vars);
    vars.finish(tls).unwrap()
}

/// Asks the service `name` at `address`.
async fn ask(tls: &Tls, name: &str, address: &str) -> Result<StatusCode, ExchangeError> {
    let call = Call::new(Method::GET, format!("https://{address}/health/live"), TIMEOUT);
    exchange(call.to_peer(Some(&tls.peer(name)))).await.map(|answer| answer.status)
}

/// A service in this process.
fn serve(tls: Tls, config: HttpConfig) -> SocketAddr {
    let server = Service::bind("a-service", config).unwrap().tls(Some(tls)).build().unwrap();
    let address = server.address();
    run(server);
    address
}

fn is_refused(asked: &Result<StatusCode, ExchangeError>, why: &str) -> bool {
    matches!(asked, Err(ExchangeError::Unreachable(error)) if error.contains(why))
}

/// What a client without TLS, or without a certificate, reads.
async fn answer(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> String {
    let _ = stream.write_all(b"GET /health/live HTTP/1.0\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A TLS client that shows no certificate.
async fn anonymous(ca: &Path, address: &str) -> String {
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    answer(connector.connect(ServerName::try_from("order-service").unwrap(), stream).await.unwrap()).await
}

#[actix_web::test]
async fn with_mutual_tls_orders_flow_and_a_service_answers_nobody_without_a_good_certificate() {
    let (certificates, folder) = Certificates::of_all_programs();
    let mut stack = Stack::start_with(&[("TLS_FOLDER", &folder)]).await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    for service in ["user-service", "order-service", "payment-service"] {
        let seen = stack.admin_port.get(&format!("/registry/services/{service}")).await.body;
        for instance in seen["instances"].as_array().unwrap() {
            assert!(instance["url"].as_str().unwrap().starts_with("https://"), "{instance}");
        }
    }

    let port = stack.replicas("order-service")[0].port;
    let (service, address) = ("order-service", format!("127.0.0.1:{port}"));
    assert_eq!(ask(&certificates.client("payment-service"), service, &address).await.unwrap(), 200);
    let stranger = certificates.bad_client(&Certificates::new().authority, SystemTime::now() + HOUR);
    assert!(ask(&stranger, service, &address).await.is_err());
    let expired = certificates.bad_client(&certificates.authority, SystemTime::now() - HOUR);
    assert!(ask(&expired, service, &address).await.is_err());
    let nobody = anonymous(&certificates.folder.join("gateway/ca.crt"), &address).await;
    assert_eq!(nobody, "");
    let plain = answer(TcpStream::connect(&address).await.unwrap()).await;
    assert!(!plain.contains("HTTP"), "{plain:?}");

    for why in ["BadSignature", "certificate expired", "peer sent no certificates", "InvalidContentType"] {
        let is_logged = async || stack.log("order-service-1").contains(why).then_some(());
        eventually(why, TIMEOUT, is_logged).await;
    }
}

#[actix_web::test]
async fn a_replica_with_the_certificate_of_another_service_gets_no_request_and_no_request_fails() {
    let (certificates, folder) = Certificates::of_all_programs();
    let second = certificates.replace("second", "user-service").display().to_string();
    let mut port = 0;
    let change = |replica: &mut Replica| {
        if replica.name == "user-service-2" {
            replica.set("TLS_FOLDER", &second);
            port = replica.port;
        }
    };
    let stack = Stack::starting_changed(&[("TLS_FOLDER", &folder)], change).await;
    stack.healthy().await;
    let ann = stack.register().await;
    // Connections that are open stay.
    certificates.replace("second", "payment-service");
    let login = json!({ "email": ann.email, "password": PASSWORD });
    // Without a key: sent again only if nothing was sent before.
    let log_in = async || stack.public.send(Method::POST, "/api/sessions", Some(&login)).await.status;
    let path = "/registry/services/user-service";
    eventually("the replica is ejected", Duration::from_secs(30), async || {
        let statuses = join_all((0..16).map(|_| log_in())).await;
        assert_eq!(statuses, [201; 16]);
        let seen = stack.admin_port.get(path).await.body;
        let mut instances = seen["instances"].as_array().into_iter().flatten();
        let replica = instances.find(|one| one["id"] == format!("e2e-{port}"))?;
        (replica["health"] == "ejected").then_some(())
    })
    .await;
    let log = stack.log("gateway");
    assert!(log.contains("not valid for name") && log.contains("an attempt failed"), "{log}");
    let metrics = stack.admin_port.text("/metrics").await;
    assert!(!metrics.contains("http_client_local_failures_total{"), "{metrics}");
}

#[actix_web::test]
async fn a_server_is_believed_only_under_the_name_in_its_certificate_and_by_its_authority() {
    let certificates = Certificates::new();
    let server = open(&certificates.replace("server", "order-service"));
    let address = serve(server, HttpConfig::for_tests()).to_string();
    let client = certificates.client("gateway");
    assert_eq!(ask(&client, "order-service", &address).await.unwrap(), 200);
    // Not even on the connection that is open.
    let refused = ask(&client, "user-service", &address).await;
    assert!(is_refused(&refused, "not valid for name"), "{refused:?}");
    // An authority of the same name.
    let refused = ask(&Certificates::new().client("gateway"), "order-service", &address).await;
    assert!(is_refused(&refused, "BadSignature"), "{refused:?}");

    let expired = certificates.replace("expired", "order-service");
    certificates.authority.certify(&["order-service"], SystemTime::now() - HOUR, &expired).unwrap();
    let address = serve(open(&expired), HttpConfig::for_tests()).to_string();
    let refused = ask(&client, "order-service", &address).await;
    assert!(is_refused(&refused, "expired"), "{refused:?}");
}

#[actix_web::test]
async fn certificates_are_read_again_without_a_restart_and_a_bad_file_leaves_the_last_good_one() {
    let certificates = Certificates::new();
    let folder = certificates.replace("server", "order-service");
    let address = serve(open(&folder), HttpConfig::for_tests()).to_string();
    // Each a new client, with a new connection.
    let is_named = async |name: &str| ask(&certificates.client("gateway"), name, &address).await.is_ok();
    assert!(is_named("order-service").await);
    certificates.replace("server", "user-service");
    assert!(is_named("user-service").await && !is_named("order-service").await);
    std::fs::write(folder.join("tls.crt"), "bad").unwrap();
    std::fs::rename(folder.join("tls.crt"), folder.join("bad")).unwrap();
    assert!(is_named("user-service").await);
    certificates.replace("server", "order-service");
    assert!(is_named("order-service").await);
}

#[actix_web::test]
async fn the_metrics_say_when_a_certificate_ends() {
    let certificates = Certificates::new();
    let folder = certificates.replace("server", "order-service");
    let address = serve(open(&folder), HttpConfig::for_tests()).to_string();
    let client = certificates.client("gateway");
    let end = async || {
        let call = Call::new(Method::GET, format!("https://{address}/metrics"), TIMEOUT);
        let answer = exchange(call.to_peer(Some(&client.peer("order-service")))).await.unwrap();
        let metrics = String::from_utf8(answer.body.to_vec()).unwrap();
        let name = "\ntls_certificate_end_timestamp_seconds{peers=\"services\"} ";
        let (_, value) = metrics.split_once(name).unwrap_or_else(|| panic!("{metrics}"));
        SystemTime::UNIX_EPOCH + Duration::from_secs(value.lines().next().unwrap().parse().unwrap())
    };
    let in_hours = |hours| SystemTime::now() + hours * HOUR;
    assert!((in_hours(1) - 2 * TIMEOUT..=in_hours(1)).contains(&end().await));
    certificates.authority.certify(&["order-service"], in_hours(3), &folder).unwrap();
    assert!(end().await > in_hours(2), "the folder is read again");
}

#[actix_web::test]
async fn a_caller_that_leaves_over_tls_does_not_end_the_handler() {
    let certificates = Certificates::new();
    let tls = open(&certificates.replace("server", "order-service"));
    let (begun, go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let told = (begun.clone(), go.clone(), done.clone());
    let service = Service::bind("a-service", HttpConfig::for_tests()).unwrap().tls(Some(tls));
    let service = service.configure(move |app| {
        let (begun, go, done) = told.clone();
        let work = move || {
            let (begun, go, done) = (begun.clone(), go.clone(), done.clone());
            async move {
                begun.notify_one();
                go.notified().await;
                done.notify_one();
                HttpResponse::Ok().finish()
            }
        };
        app.route("/work", web::get().to(work));
    });
    let server = service.build().unwrap();
    let address = server.address().to_string();
    run(server);
    let client = certificates.client("gateway");
    let stream = TcpStream::connect(&address).await.unwrap();
    let mut caller = client.peer("order-service").connect(stream).await.unwrap();
    caller.write_all(b"GET /work HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    begun.notified().await;
    drop(caller);
    // The server sees what came before this request, too.
    for _ in 0..8 {
        assert_eq!(ask(&client, "order-service", &address).await.unwrap(), 200);
    }
    go.notify_one();
    assert!(tokio::time::timeout(TIMEOUT, done.notified()).await.is_ok(), "the handler was dropped");
}

#[actix_web::test]
async fn a_client_that_does_not_finish_its_handshake_is_disconnected_and_counts_as_a_connection() {
    let certificates = Certificates::new();
    let mut config = HttpConfig { max_connections: 1, ..HttpConfig::for_tests() };
    config.limits.head_timeout = Duration::from_millis(500);
    let address = serve(open(&certificates.replace("server", "order-service")), config).to_string();
    let client = certificates.client("gateway");
    let mut silent = TcpStream::connect(&address).await.unwrap();
    // The beginning of a record.
    silent.write_all(&[22, 3, 1]).await.unwrap();
    assert!(ask(&client, "order-service", &address).await.is_err());
    let mut rest = Vec::new();
    let end = silent.read_to_end(&mut rest);
    assert!(tokio::time::timeout(TIMEOUT, end).await.is_ok(), "it holds its place");
    eventually("its place is free", TIMEOUT, async || ask(&client, "order-service", &address).await.ok())
        .await;
}
