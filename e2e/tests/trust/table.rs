//! Tries every cell of caller × route and source × event type that is not in `calls.txt`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use actix_web::http::Method;
use e2e::{Stack, key};
use serde_json::json;
use shared::messages::Event;
use uuid::Uuid;
use xtask::{Kind, programs, services};

/// Routes of the chassis that take a token, in services with messages.
const OF_MESSAGES: [(Method, &str); 7] = [
    (Method::POST, "/messages"),
    (Method::GET, "/admin/audit"),
    (Method::GET, "/admin/outbox"),
    (Method::GET, "/admin/messages"),
    (Method::GET, "/admin/dead-letters"),
    (Method::POST, "/admin/dead-letters/{id}/replay"),
    (Method::DELETE, "/admin/dead-letters/{id}"),
];
/// The routes of the gateway's admin port.
const OF_GATEWAY: [(Method, &str); 5] = [
    (Method::PUT, "/routes/{id}/strategy"),
    (Method::PUT, "/registry/services/{name}/instances/{id}"),
    (Method::DELETE, "/registry/services/{name}/instances/{id}"),
    (Method::PUT, "/registry/services/{name}/instances/{id}/maintenance"),
    (Method::DELETE, "/registry/services/{name}/instances/{id}/maintenance"),
];
/// The only route of a service that reads no token.
const PUBLIC: &str = "/.well-known/jwks.json";
/// Serves pages to anybody, and reads no token.
const PAGES: &str = "storefront";

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rows of the table: caller, callee, method, what, on behalf.
fn rows() -> Vec<[String; 5]> {
    let table = text(&root().join("calls.txt"));
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let columns: Vec<_> = row.split_whitespace().map(str::to_owned).collect();
        columns.try_into().unwrap_or_else(|_| panic!("{row}"))
    })
    .collect()
}

/// Every service that has a key.
fn callers() -> impl Iterator<Item = &'static str> {
    programs().iter().filter(|program| program.kind != Kind::External).map(|program| program.name)
}

/// The routes that a service declares above its handlers.
fn declared(package: &str) -> Vec<(Method, String)> {
    let mut routes = Vec::new();
    for file in fs::read_dir(root().join(package).join("src/routes")).unwrap() {
        let source = text(&file.unwrap().path());
        let Some((_, attribute)) = source.split_once("#[utoipa::path(") else { continue };
        let (head, _) = attribute.split_once(')').unwrap();
        let method = head.trim_start().split([',', ' ', '\n']).next().unwrap().to_uppercase();
        let path = head.split_once("path = \"").unwrap().1.split('"').next().unwrap();
        routes.push((method.parse().unwrap(), path.to_owned()));
    }
    routes.retain(|(_, path)| path != PUBLIC);
    routes
}

/// What each program serves: callee, method, route.
fn routes() -> Vec<(&'static str, Method, String)> {
    let mut all: Vec<_> = OF_GATEWAY.map(|(method, path)| ("gateway", method, path.to_owned())).into();
    for service in services().filter(|service| service.name != PAGES) {
        all.extend(declared(service.package).into_iter().map(|(method, path)| (service.name, method, path)));
        if service.messages {
            all.extend(OF_MESSAGES.map(|(method, path)| (service.name, method, path.to_owned())));
        }
    }
    all
}

#[test]
fn every_row_of_the_table_names_a_program_and_a_route_that_exist() {
    let (routes, callers) = (routes(), callers().collect::<BTreeSet<_>>());
    assert!(routes.len() > 35, "{routes:?}");
    for row in rows() {
        let [caller, callee, method, what, _] = &row;
        assert!(caller == "*" || callers.contains(caller.as_str()), "{row:?}");
        assert!(callers.contains(callee.as_str()), "{row:?}");
        let exists = |(of, verb, path): &(&str, Method, String)| {
            of == callee && verb.as_str() == method && path == what
        };
        assert!(method == "EVENT" || routes.iter().any(exists), "{row:?}");
    }
}

#[actix_web::test]
async fn every_request_that_is_not_in_the_table_is_refused() {
    let (stack, rows) = (Stack::start().await, rows());
    let mut tried = 0;
    for (callee, method, route) in routes() {
        let api = if callee == "gateway" { stack.admin_port.clone() } else { stack.direct(callee) };
        for caller in callers() {
            for person in [None, Some(Uuid::now_v7())] {
                let is_listed = rows.iter().any(|[from, to, verb, what, on_behalf]| {
                    let is_request = verb == method.as_str() && *what == route;
                    let is_event =
                        verb == "EVENT" && (method.as_str(), route.as_str()) == ("POST", "/messages");
                    (from == caller || from == "*")
                        && to == callee
                        && (is_request || is_event)
                        && (person.is_none() || on_behalf == "person")
                });
                // A program may register only itself.
                let name = if is_listed && callee == "gateway" { "another-service" } else { caller };
                if is_listed && callee != "gateway" {
                    continue;
                }
                let id = Uuid::now_v7().to_string();
                let path = route.replace("{name}", name).replace("{id}", &id).replace("{product_id}", &id);
                assert!(!path.contains('{'), "{path}");
                let api = api.with_token(stack.service_token(caller, callee, person)).with_key(key());
                let body = json!({ "url": "http://127.0.0.1:1", "metadata": {} });
                let body = (method != Method::GET && method != Method::DELETE).then_some(&body);
                let reply = api.with("if-match", "\"1\"").send(method.clone(), &path, body).await;
                assert_eq!(reply.status, 403, "{caller} sends {callee} {method} {path}: {reply:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 250, "{tried}");
}

#[actix_web::test]
async fn every_event_that_is_not_in_the_table_is_refused() {
    let (stack, rows) = (Stack::start().await, rows());
    let kinds: BTreeSet<_> = rows
        .iter()
        .filter(|[_, _, method, ..]| method == "EVENT")
        .map(|[.., what, _]| what.as_str())
        .collect();
    let mut tried = 0;
    for callee in services().filter(|service| service.messages).map(|service| service.name) {
        for caller in callers() {
            let token = stack.service_token(caller, callee, None);
            let api = stack.direct(callee).with_token(token);
            for source in callers() {
                for kind in kinds.iter().copied().chain(["user.deleted"]) {
                    let is_listed = rows.iter().any(|[from, to, method, what, _]| {
                        from == source && to == callee && method == "EVENT" && what == kind
                    });
                    if is_listed && caller == source {
                        continue;
                    }
                    let event = Event::new(source, &format!("{kind}.v1"), Uuid::now_v7(), json!({}));
                    let reply = api.post("/messages", event.to_json()).await;
                    assert_eq!(reply.status, 403, "{caller} sends {callee} {kind} of {source}: {reply:?}");
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 300, "{tried}");
}
