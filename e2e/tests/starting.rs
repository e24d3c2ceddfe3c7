//! A program that cannot start reports all its mistakes together.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::{Command, Output};

use xtask::{Kind, Secrets, programs};

fn run(program: &str, variables: &[(&str, &str)]) -> (Output, String) {
    let path = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join(program);
    let mut command = Command::new(path);
    command.env_clear().envs(variables.iter().copied()).current_dir(std::env::temp_dir());
    let output = command.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, log)
}

#[test]
fn every_missing_or_bad_variable_is_named_and_the_status_is_2() {
    let bad = [
        ("PORT", "http"),
        ("DRAIN_GRACE", "soon"),
        ("REGISTRY_URL", "etcd://x"),
        ("MESSAGES_URL", "amqp://me:hidden@x:1"),
    ];
    for program in programs().iter().filter(|program| program.kind != Kind::External) {
        let (messages, program) = (program.messages, program.name);
        let (output, log) = run(program, &bad);
        assert_eq!(output.status.code(), Some(2), "{program}: {log}");
        for name in
            ["PORT", "DRAIN_GRACE", "REGISTRY_URL", "SERVICE_TOKEN_KEY_FILE", "SERVICE_TOKEN_PUBLIC_KEYS"]
        {
            assert!(log.contains(name), "{program} does not name {name}: {log}");
        }
        assert_eq!(log.contains("MESSAGES_URL"), messages, "{program}: {log}");
        assert!(!log.contains("hidden"), "{program} shows a password: {log}");
    }
}

#[test]
fn a_database_that_cannot_be_opened_a_port_in_use_and_a_bad_file_are_named() {
    let folder = std::env::temp_dir().join(format!("starting-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let secrets = Secrets::make(&folder).unwrap();
    let (key, public) = (secrets.service_key("order-service"), secrets.public_keys());
    let (key, public) = (key.display().to_string(), public.display().to_string());
    let database = format!("sqlite://{}/no/database.db", file("in-the-way", ""));
    let (output, log) = run(
        "order-service",
        &[
            ("PORT", "0"),
            ("SERVICE_TOKEN_KEY_FILE", &key),
            ("SERVICE_TOKEN_PUBLIC_KEYS", &public),
            ("REGISTRY_URL", "static://"),
            ("DATABASE_URL", &database),
        ],
    );
    assert!(!output.status.success() && log.contains("in-the-way"), "{log}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let good = format!("sqlite://{}", folder.join("good.db").display());
    let (output, log) = run(
        "order-service",
        &[
            ("PORT", &port),
            ("SERVICE_TOKEN_KEY_FILE", &key),
            ("SERVICE_TOKEN_PUBLIC_KEYS", &public),
            ("REGISTRY_URL", "static://"),
            ("DATABASE_URL", &good),
        ],
    );
    assert!(!output.status.success() && log.contains(&port), "{log}");

    let routes = file(
        "gateway.toml",
        "[[routes]]\nid = \"a\"\nprefix = \"/a\"\nservice = \"a\"\nstrategy = \"magic\"\n",
    );
    let (output, log) = run(
        "gateway",
        &[
            ("PORT", "0"),
            ("ADMIN_PORT", "0"),
            ("SERVICE_TOKEN_KEY_FILE", &key),
            ("SERVICE_TOKEN_PUBLIC_KEYS", &public),
            ("CONFIG_FILE", &routes),
        ],
    );
    assert!(!output.status.success() && log.contains("line 5") && log.contains("magic"), "{log}");
    std::fs::remove_dir_all(folder).unwrap();
}
