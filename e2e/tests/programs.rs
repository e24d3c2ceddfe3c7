//! programs.txt, docker-compose.yml, its overlay `checks` and gateway.toml name the same programs.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::Path;

use serde_yaml_ng::{Mapping, Value};
use xtask::{Kind, Program, programs, services};

const COMPOSE: &str = "docker-compose.yml";
const CHECKS: &str = "deploy/compose.checks.yml";

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn yaml(path: &str) -> Value {
    let mut yaml: Value = serde_yaml_ng::from_str(&text(path)).unwrap();
    yaml.apply_merge().unwrap();
    yaml
}

/// The strings in a list, whatever else is in it.
fn strings(list: &Value) -> Vec<&str> {
    list.as_sequence().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn keys(mapping: &Value) -> BTreeSet<&str> {
    mapping.as_mapping().map(Mapping::keys).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What docker-compose.yml and the list do not agree about.
fn problems_of_compose(compose: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for program in programs() {
        let service = &compose["services"][program.name];
        if service.is_null() {
            problems.push(format!("{COMPOSE} has no service `{}`, which programs.txt lists", program.name));
            continue;
        }
        let wrong = problems_of_service(program, service, compose);
        problems
            .extend(wrong.into_iter().map(|wrong| format!("{COMPOSE}: service `{}`: {wrong}", program.name)));
    }
    for (name, service) in compose["services"].as_mapping().unwrap() {
        let (name, target) = (name.as_str().unwrap(), &service["build"]["target"]);
        if target == "program" && !programs().iter().any(|program| program.name == name) {
            problems.push(format!("programs.txt does not list `{name}`, which is a program in {COMPOSE}"));
        }
    }
    problems
}

fn problems_of_service(program: &Program, service: &Value, compose: &Value) -> Vec<String> {
    let Program { name, port, replicas, .. } = program;
    let mut problems = Vec::new();
    let mut check = |holds: bool, problem: String| {
        if !holds {
            problems.push(problem);
        }
    };
    let build = &service["build"];
    check(build["target"] == "program", "its build has not the target `program`".to_owned());
    for (argument, expected) in
        [("PROGRAM", *name), ("PACKAGE", program.package), ("PORT", &port.to_string())]
    {
        let found = &build["args"][argument];
        let found =
            found.as_str().map_or_else(|| found.as_u64().unwrap_or_default().to_string(), str::to_owned);
        check(found == expected, format!("its argument {argument} is {found}, in programs.txt {expected}"));
    }
    let found = service["deploy"]["replicas"].as_u64().unwrap_or(1);
    check(found == u64::from(*replicas), format!("it has {found} replicas, in programs.txt {replicas}"));

    let environment = keys(&service["environment"]);
    for (variable, is_needed) in [
        ("SERVICE_TOKEN_KEY_FILE", program.kind != Kind::External),
        ("SERVICE_TOKEN_PUBLIC_KEYS", program.kind != Kind::External),
        ("CONSUL_HTTP_TOKEN_FILE", program.kind != Kind::External),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", true),
        ("DATABASE_URL_FILE", program.database.is_some()),
        ("DATABASE_MIGRATIONS_URL_FILE", program.database.is_some()),
        ("MESSAGES_URL_FILE", program.messages),
        ("SIGNING_KEY_FILE", program.secrets.contains(&"signing-key")),
        ("SEAL_KEY_FILE", program.secrets.contains(&"seal-key")),
        ("ADMIN_PASSWORD_FILE", program.secrets.contains(&"admin")),
    ] {
        let is_there = environment.contains(variable);
        let (what, list) = if is_there { ("has", "does not need") } else { ("has no", "needs") };
        check(
            is_there == is_needed,
            format!("it {what} variable {variable}, which it {list} by programs.txt"),
        );
    }
    match program.kind {
        Kind::External => {
            let (variable, url) = (program.url_variable(), format!("http://{name}:{port}"));
            let services = compose["services"].as_mapping().unwrap().values();
            let mut urls = services.filter_map(|service| service["environment"][&variable].as_str());
            check(urls.any(|found| found == url), format!("no service has {variable}: {url}"));
        }
        Kind::Gateway | Kind::Service | Kind::Tool => {
            let volume = format!("{name}-secrets");
            for (place, found, expected) in [
                ("its volumes", strings(&service["volumes"]), format!("{volume}:/secrets:ro")),
                ("its volumes", strings(&service["volumes"]), "public-keys:/public-keys:ro".to_owned()),
                (
                    "the volumes of the service `secrets`",
                    strings(&compose["services"]["secrets"]["volumes"]),
                    format!("{volume}:/secrets/{name}"),
                ),
                ("the volumes of the file", keys(&compose["volumes"]).into_iter().collect(), volume.clone()),
            ] {
                check(found.contains(&expected.as_str()), format!("{place} lack `{expected}`"));
            }
        }
    }
    problems
}

fn problems_of_overlay(checks: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let is_published = |program: &&Program| matches!(program.kind, Kind::Gateway | Kind::Tool);
    for program in programs().iter().filter(|program| !is_published(program)) {
        let Program { name, port, .. } = program;
        let ports = strings(&checks["services"][program.name]["ports"]);
        if !ports.iter().any(|found| {
            found.starts_with(&format!("127.0.0.1:{port}")) && found.ends_with(&format!(":{port}"))
        }) {
            problems.push(format!("{CHECKS} does not publish port {port} of `{name}`"));
        }
    }
    problems
}

fn problems_of_routes(gateway: &toml::Table) -> Vec<String> {
    let routes = gateway["routes"].as_array().unwrap().iter();
    let routed: BTreeSet<_> = routes.map(|route| route["service"].as_str().unwrap()).collect();
    let listed: BTreeSet<_> = services().map(|service| service.name).collect();
    let no_route = listed.difference(&routed);
    let unknown = routed.difference(&listed);
    no_route
        .map(|name| format!("gateway.toml has no route to `{name}`, which programs.txt lists as a service"))
        .chain(unknown.map(|name| {
            format!("gateway.toml has a route to `{name}`, which programs.txt does not list as a service")
        }))
        .collect()
}

#[test]
fn every_file_has_every_program_that_the_list_has() {
    let mut problems = problems_of_compose(&yaml(COMPOSE));
    problems.extend(problems_of_overlay(&yaml(CHECKS)));
    problems.extend(problems_of_routes(&text("gateway.toml").parse().unwrap()));
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn names_ports_and_databases_are_not_given_twice() {
    let mut taken = BTreeSet::from([xtask::stack::ADMIN_PORT.to_string()]);
    for program in programs() {
        let ports = (program.port..program.port + program.replicas).map(|port| port.to_string());
        let database = program.database.map(|database| format!("database {database}"));
        for name in ports.chain([program.name.to_owned()]).chain(database) {
            assert!(taken.insert(name.clone()), "programs.txt: {}: {name} is taken", program.name);
        }
        text(&format!("{}/Cargo.toml", program.package));
    }
}

#[test]
fn what_is_missing_is_named_with_its_place() {
    let mut compose = yaml(COMPOSE);
    let services = compose["services"].as_mapping_mut().unwrap();
    services.remove("order-service").unwrap();
    services["user-service"]["deploy"]["replicas"] = 3.into();
    services["user-service"]["environment"].as_mapping_mut().unwrap().remove("SIGNING_KEY_FILE").unwrap();
    services["payment-service"]["build"]["args"]["PORT"] = 3031.into();
    services["payment-service"]["volumes"] = Value::Null;
    services["gateway"]["environment"]["DATABASE_URL_FILE"] = "/secrets/database-url".into();
    let another = services["gateway"].clone();
    services.insert("another-service".into(), another);
    assert_eq!(
        problems_of_compose(&compose),
        [
            "docker-compose.yml: service `gateway`: it has variable DATABASE_URL_FILE, which it does not need by \
             programs.txt",
            "docker-compose.yml: service `user-service`: it has 3 replicas, in programs.txt 2",
            "docker-compose.yml: service `user-service`: it has no variable SIGNING_KEY_FILE, which it needs by \
             programs.txt",
            "docker-compose.yml has no service `order-service`, which programs.txt lists",
            "docker-compose.yml: service `payment-service`: its argument PORT is 3031, in programs.txt 3021",
            "docker-compose.yml: service `payment-service`: its volumes lack `payment-service-secrets:/secrets:ro`",
            "docker-compose.yml: service `payment-service`: its volumes lack `public-keys:/public-keys:ro`",
            "programs.txt does not list `another-service`, which is a program in docker-compose.yml",
        ]
    );
    let routes =
        "[[routes]]\nservice = \"user-service\"\n[[routes]]\nservice = \"nobody\"\n".parse().unwrap();
    let problems = problems_of_routes(&routes);
    assert!(problems.iter().any(|problem| problem.contains("no route to `order-service`")), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.contains("a route to `nobody`")), "{problems:?}");
}
