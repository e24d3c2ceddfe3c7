//! NATS and Consul as docker compose starts them: each service may do there what `calls.txt` lists, and no more.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::Config;
use e2e::{Stack, eventually};
use futures_util::StreamExt as _;
use shared::auth::Secret;
use shared::registry::{ConsulRegistry, Instance, Registry as _, RegistryError};
use shared::testing::server;
use tokio::sync::Mutex;

/// Two systems on one NATS would take each other's events.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The volumes that the service `secrets` of docker compose filled.
fn secrets() -> Option<PathBuf> {
    server("TEST_COMPOSE_SECRETS", "NATS and Consul of docker compose").map(PathBuf::from)
}

fn text(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
    text.trim().to_owned()
}

fn consul(secrets: &Path, service: &str) -> ConsulRegistry {
    let consul: ConsulRegistry = text(&secrets.join("consul-address")).parse().unwrap();
    consul.with_token(Some(Secret::new(text(&secrets.join(service).join("consul-token")))))
}

/// The URL that compose gives a service, with the server of the test.
fn messages_url(secrets: &Path, service: &str) -> String {
    let url = text(&secrets.join(service).join("messages-url"));
    url.replace("nats:4222", &text(&secrets.join("nats-address")))
}

#[actix_web::test]
async fn with_the_permissions_of_compose_orders_are_confirmed_and_replicas_are_found() {
    let Some(secrets) = secrets() else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let urls = std::env::temp_dir().join(format!("urls-{}", uuid::Uuid::now_v7()));
    fs::create_dir_all(&urls).unwrap();
    for service in ["order-service", "payment-service"] {
        fs::write(urls.join(service), messages_url(&secrets, service)).unwrap();
    }
    let stack = Stack::start_with(&[
        ("REGISTRY_URL", &format!("consul://{}", text(&secrets.join("consul-address")))),
        ("CONSUL_HTTP_TOKEN_FILE", &format!("{}/{{program}}/consul-token", secrets.display())),
        ("MESSAGES_URL_FILE", &format!("{}/{{program}}", urls.display())),
    ])
    .await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    ann.cancel(&order).await.expect(202);
    ann.order_reaches(&order, "refunded").await;
    for service in ["order-service", "payment-service"] {
        let health = stack.direct(service).get("/health").await.expect(200);
        assert_eq!(health["status"], "ok", "{health}");
    }
    fs::remove_dir_all(urls).unwrap();
}

#[actix_web::test]
async fn consul_lets_a_service_register_only_itself() {
    let Some(secrets) = secrets() else { return };
    let thief = consul(&secrets, "payment-service");
    let instance = Instance::new("thief", "http://127.0.0.1:1");
    let refused = thief.register("user-service", &instance).await;
    assert!(matches!(refused, Err(RegistryError::Refused(_))), "{refused:?}");
    let owner = consul(&secrets, "user-service");
    owner.register("user-service", &instance).await.unwrap();
    let refused = thief.deregister("user-service", "thief").await;
    assert!(matches!(refused, Err(RegistryError::Refused(_))), "{refused:?}");
    owner.deregister("user-service", "thief").await.unwrap();
    for stranger in ["", "11111111-2222-3333-4444-555555555555"] {
        let token = (!stranger.is_empty()).then(|| Secret::new(stranger));
        let anonymous = consul(&secrets, "user-service").with_token(token);
        assert!(anonymous.register("user-service", &instance).await.is_err(), "{stranger}");
    }
    let refused = consul(&secrets, "gateway").register("user-service", &instance).await;
    assert!(matches!(refused, Err(RegistryError::Refused(_))), "{refused:?}");
}

#[actix_web::test]
async fn nats_lets_a_service_send_what_the_table_lists_and_receive_only_its_own() {
    let Some(secrets) = secrets() else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let url = messages_url(&secrets, "payment-service");
    let (login, _) = url.strip_prefix("nats://").unwrap().split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let server = text(&secrets.join("nats-address"));
    assert!(async_nats::connect(&server).await.is_err(), "without a login");
    let violations = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = violations.clone();
    let options = ConnectOptions::new()
        .user_and_password(user.to_owned(), password.to_owned())
        .custom_inbox_prefix(format!("_INBOX_{user}"))
        .event_callback(move |event| {
            seen.lock().unwrap().push(event.to_string());
            std::future::ready(())
        });
    let client = options.connect(&server).await.unwrap();
    let nats = ContextBuilder::new().timeout(Duration::from_secs(1)).build(client.clone());
    let config =
        Config { name: "messages".to_owned(), subjects: vec!["messages.>".to_owned()], ..Config::default() };
    let stream = eventually("the stream can be used", Duration::from_secs(10), || async {
        let config =
            Config { retention: async_nats::jetstream::stream::RetentionPolicy::WorkQueue, ..config.clone() };
        nats.get_or_create_stream(config).await.ok()
    })
    .await;
    let send = async |subject: &'static str| {
        let sent = nats.publish(subject, "{}".into()).await.unwrap();
        sent.await.map(drop).map_err(|error| error.to_string())
    };
    // This subject is of order-service, which is permitted. The event is no CloudEvent and does no harm.
    assert_eq!(send("messages.order-service.15").await, Ok(()));
    for subject in [
        "messages.payment-service.0",
        "messages.user-service.0",
        "messages.order-service.0.x",
        "$JS.API.STREAM.DELETE.messages",
    ] {
        assert!(send(subject).await.is_err(), "{subject}");
    }
    let mut spied = client.subscribe("messages.>").await.unwrap();
    assert_eq!(send("messages.order-service.14").await, Ok(()));
    let seen = tokio::time::timeout(Duration::from_millis(500), spied.next()).await;
    assert!(!matches!(seen, Ok(Some(_))), "{seen:?}");

    let consumer = |name: &str, subject: &str| pull::Config {
        durable_name: Some(name.to_owned()),
        filter_subject: subject.to_owned(),
        ..pull::Config::default()
    };
    for (name, subject) in [
        ("order-service-3", "messages.order-service.3"),
        ("payment-service-3", "messages.order-service.3"),
        ("mine", "messages.payment-service.3"),
    ] {
        assert!(stream.create_consumer(consumer(name, subject)).await.is_err(), "{name} {subject}");
    }
    let own = consumer("payment-service-3", "messages.payment-service.3");
    stream.get_or_create_consumer("payment-service-3", own).await.unwrap();

    // Whatever reads, deletes or takes over what is of others.
    for request in [
        "STREAM.MSG.GET.messages",
        "STREAM.MSG.DELETE.messages",
        "DIRECT.GET.messages",
        "DIRECT.GET.messages.messages.order-service.3",
        "STREAM.PURGE.messages",
        "STREAM.DELETE.messages",
        "STREAM.UPDATE.messages",
        "STREAM.CREATE.another",
        "STREAM.SNAPSHOT.messages",
        "STREAM.RESTORE.messages",
        "STREAM.LIST",
        "CONSUMER.CREATE.messages",
        "CONSUMER.CREATE.messages.order-service-3.messages.order-service.3",
        "CONSUMER.CREATE.messages.payment-service-3.messages.order-service.3",
        "CONSUMER.CREATE.messages.payment-service-3",
        "CONSUMER.DURABLE.CREATE.messages.payment-service-3",
        "CONSUMER.DELETE.messages.payment-service-3",
        "CONSUMER.DELETE.messages.order-service-3",
        "CONSUMER.INFO.messages.order-service-3",
        "CONSUMER.MSG.NEXT.messages.order-service-3",
    ] {
        let subject = format!("$JS.API.{request}");
        client.publish(subject.clone(), "{}".into()).await.unwrap();
        let refused = async || {
            let violations = violations.lock().unwrap();
            violations
                .iter()
                .any(|why| why.to_lowercase().contains(&format!("publish to \"{subject}\"").to_lowercase()))
                .then_some(())
        };
        eventually(&format!("{subject} is refused"), Duration::from_secs(5), refused).await;
    }
    // The subject names its own events, the request those of another.
    let others = serde_json::json!({ "stream_name": "messages", "config": {
        "durable_name": "payment-service-5", "filter_subject": "messages.order-service.5", "ack_policy": "explicit",
    } });
    let subject = "$JS.API.CONSUMER.CREATE.messages.payment-service-5.messages.payment-service.5";
    let answer = client.request(subject, others.to_string().into()).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer["error"].is_object(), "{answer}");
}

/// Stands for a program: notes its arguments, and prints a token.
const NOTES_ARGUMENTS: &str = "#!/bin/sh\necho \"$(basename \"$0\") $*\" >>\"$NOTES\"\n\
    case $* in *agent*-server*) ;; *) cat >/dev/null; echo 'SecretID: made-by-consul' ;; esac\n";

#[test]
fn no_token_of_consul_is_on_a_command_line() {
    let folder = std::env::temp_dir().join(format!("consul-{}", uuid::Uuid::now_v7()));
    let (tokens, programs, notes) = (folder.join("tokens"), folder.join("bin"), folder.join("notes"));
    for folder in [&tokens, &programs] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(tokens.join("user-service"), "of-user-service\n").unwrap();
    for program in ["consul", "curl"] {
        let file = programs.join(program);
        fs::write(&file, NOTES_ARGUMENTS).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let start = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/consul/start.sh");
    let run = |argument: &str| {
        let mut command = std::process::Command::new("sh");
        command.arg(&start).arg(argument).stdin(std::process::Stdio::null());
        command.env("PATH", &path).env("TOKENS", &tokens).env("TMPDIR", &folder).env("NOTES", &notes);
        assert!(command.status().unwrap().success(), "{argument}");
        text(&notes)
    };
    let noted = run("-server");
    for done in ["consul agent", "acl bootstrap", "acl/token", "agent/token/agent"] {
        assert!(noted.contains(done), "{done}: {noted}");
    }
    // A rotation.
    fs::write(tokens.join("user-service.next"), "of-user-service, the next\n").unwrap();
    assert_eq!(run("tokens").matches("--request PUT").count(), noted.matches("--request PUT").count() + 1);
    fs::rename(tokens.join("user-service.next"), tokens.join("user-service")).unwrap();
    let noted = run("tokens");
    assert_eq!(noted.matches("--request DELETE").count(), 1, "{noted}");
    assert!(!noted.contains("of-user-service") && !noted.contains("made-by-consul"), "{noted}");
    for file in ["header", "given"] {
        let mode = fs::metadata(folder.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
    fs::remove_dir_all(folder).unwrap();
}
