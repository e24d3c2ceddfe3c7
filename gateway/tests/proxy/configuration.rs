//! `gateway.toml`: its example, its schema, its errors, and its reload.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use gateway::routing::{GatewayConfig, schema};
use serde_json::Value;
use shared::testing::{Api, eventually};

use crate::OK;
use crate::harness::{CONSOLE, Gateway, Upstream, configuration, free_ports, raw, raw_at};
use crate::site::Site;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
const GET: &str = "GET /b HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";

fn example() -> String {
    fs::read_to_string(format!("{DOCS}/gateway.example.toml")).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&schema::text()).unwrap()
}

/// The keys of a schema's type as `routes.cors.origins`, with their defaults.
fn keys_of(schema: &Value, of: &Value, path: &str, keys: &mut Vec<(String, Value)>) {
    for (key, value) in of["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}{key}");
        keys.push((path.clone(), value["default"].clone()));
        let alternatives = ["anyOf", "allOf"].iter().filter_map(|kind| value[*kind].as_array()).flatten();
        for nested in [value, &value["items"]].into_iter().chain(alternatives) {
            let reference = nested["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
            if let Some(name) = reference {
                keys_of(schema, &schema["definitions"][name], &format!("{path}."), keys);
            }
        }
    }
}

/// The keys of a file in the same form, with their values.
fn keys_in(table: &toml::Table, path: &str, keys: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let path = format!("{path}{key}");
        keys.push((path.clone(), serde_json::to_value(value).unwrap()));
        let tables = match value {
            toml::Value::Table(table) => vec![table],
            toml::Value::Array(array) => array.iter().filter_map(toml::Value::as_table).collect(),
            _ => Vec::new(),
        };
        tables.into_iter().for_each(|table| keys_in(table, &format!("{path}."), keys));
    }
}

#[test]
fn the_example_has_every_key_with_its_default_and_no_other() {
    GatewayConfig::parse(&example()).unwrap();
    let (mut documented, mut known) = (Vec::new(), Vec::new());
    keys_in(&example().parse().unwrap(), "", &mut documented);
    // These names are not keys, but versions.
    documented.retain(|(key, _)| !key.starts_with("routes.versions.weights."));
    let schema = schema();
    keys_of(&schema, &schema, "", &mut known);
    let names = |keys: &[(String, Value)]| keys.iter().map(|(key, _)| key.clone()).collect::<BTreeSet<_>>();
    assert_eq!(names(&documented), names(&known));
    for (key, default) in known.iter().filter(|(_, default)| !default.is_null()) {
        let value = documented.iter().find(|(documented, _)| documented == key).map(|(_, value)| value);
        assert_eq!(value, Some(default), "{key}");
    }
}

#[test]
fn every_key_of_the_example_has_a_comment() {
    let example = example();
    let lines: Vec<_> = example.lines().collect();
    for (before, line) in lines.iter().zip(&lines[1..]) {
        let is_key = |line: &str| line.contains(" = ") && !line.starts_with('#');
        assert!(!is_key(line) || before.starts_with('#') || is_key(before), "{line}");
    }
}

#[test]
fn the_schema_for_editors_is_that_of_the_types() {
    let written = fs::read_to_string(format!("{DOCS}/gateway.schema.json")).unwrap();
    assert!(
        written == schema::text(),
        "write it anew: cargo run -p gateway -- --config-schema > docs/gateway.schema.json"
    );
    let file = fs::read_to_string(format!("{DOCS}/../gateway.toml")).unwrap();
    assert!(file.starts_with("#:schema ./docs/gateway.schema.json\n"));
}

/// Runs the program with this file and without any other variable.
fn check_config(file: &Path) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_gateway"));
    Command::new(program).arg("--check-config").env_clear().env("CONFIG_FILE", file).output().unwrap()
}

#[test]
fn check_config_exits_with_0_for_a_good_file_and_with_1_and_the_place_for_a_bad_one() {
    let file = std::env::temp_dir().join(format!("gateway-{}.toml", uuid::Uuid::now_v7()));
    let checked = |text: &str| {
        fs::write(&file, text).unwrap();
        let output = check_config(&file);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
        (output.status.code(), said.concat())
    };
    let route = |prefix: &str, keys: &str| {
        format!("[[routes]]\nid = \"b\"\nprefix = \"{prefix}\"\nservice = \"b\"\n{keys}")
    };
    let (status, said) = checked(&configuration(""));
    assert!(status == Some(0) && said.contains("good, with 1 routes"), "{status:?} {said}");
    for (policies, place) in [
        ("colour = 1", "line 1, column 1: unknown field `colour`"),
        ("rate_burst = -1", "line 1, column 14: "),
        ("\nrate_burst = 0", "line 2, column 1: rate_burst: must be 1 to 1000000000"),
        ("rate_burst = ", "line 1, column "),
        (
            "[tls]\nport = 1\ncertificates = []\nhsts = \"forever\"",
            "line 4, column 1: tls.hsts: must begin with max-age=",
        ),
        ("[[routes]]\nid = \"b\"\nprefix = \"b\"\nservice = \"b\"", "line 3, column 1: routes.0.prefix: "),
        ("[[routes]]\nid = \"b\"\nprefix = \"/b\"", "line 1, column 1: missing field `service`"),
        ("strip_headers = [\"x user\"]", "line 1, column 1: strip_headers: must be names of headers"),
        ("[tls]\nport = 1\nredirect_port = 0\ncertificates = []", "line 3, column 1: tls.redirect_port: "),
        (
            "[oidc]\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"https://id.example/\"\nca_file = \"/nowhere.pem\"",
            "oidc.ca_file: /nowhere.pem: ",
        ),
        (&route("/docs/b", ""), "line 3, column 1: routes.0.prefix: no request reaches it"),
        (&route("/b//c", ""), "line 3, column 1: routes.0.prefix: no request has it"),
        (&route("/b", "hash_header = \"x y\""), "line 5, column 1: routes.0.hash_header: "),
        (
            &route("/b", "[routes.versions]\nweights = { v1 = 1 }\nsticky_header = \"x y\""),
            "line 7, column 1: routes.0.versions.sticky_header: ",
        ),
    ] {
        let (status, said) = checked(&configuration(policies));
        assert!(status == Some(1) && said.contains(place), "{policies}: {status:?} {said}");
        assert!(said.contains(file.to_str().unwrap()), "{said}");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(check_config(&file).status.code(), Some(1), "there is no file");
}

#[test]
fn check_config_reads_the_certificates_as_the_start_does() {
    let site = Site::new();
    let checked = || {
        let output = check_config(&site.path("gateway.toml"));
        (
            output.status.code(),
            [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat(),
        )
    };
    site.certify("a", &["a.example"]);
    site.configure("", &[("a", &["a.example"])]);
    let (status, said) = checked();
    assert!(status == Some(0) && said.contains("good, with 1 routes"), "{status:?} {said}");
    site.configure("", &[("a", &["other.example"])]);
    let of_another_name = checked();
    site.configure("", &[("none", &["a.example"])]);
    let missing = checked();
    site.configure("", &[("a", &["a.example"])]);
    let key = fs::read_to_string(site.path("a.key")).unwrap();
    site.certify("a", &["a.example"]);
    site.write("a.key", &key);
    let of_another_key = checked();
    site.configure("", &[]);
    for ((status, said), why) in [
        (of_another_name, "it is not for other.example"),
        (missing, "none.pem"),
        (of_another_key, "it is not the key of"),
        (checked(), "certificates"),
    ] {
        assert!(status == Some(1) && said.contains(why) && said.contains("gateway.toml"), "{why}: {said}");
    }
}

#[actix_web::test]
async fn a_reload_that_changes_a_key_of_the_start_is_refused_and_the_file_of_before_stays_in_force() {
    let upstream = Upstream::answering(OK);
    let ports = free_ports();
    let gateway = Gateway::start_with("", ports, &[&upstream]).await.unwrap();
    let (admin, routed) =
        (Api::local(ports[1]), "[[routes]]\nid = \"b\"\nprefix = \"/b\"\nservice = \"a\"\n");
    let oidc = "[oidc]\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"http://127.0.0.1:1/\"\n";
    assert!(raw(&gateway, GET).await.starts_with("HTTP/1.1 404"), "it serves, and watches the file");
    for (policies, why) in [
        (format!("rate_per_second = 7\n{routed}"), "line 1, column 1: rate_per_second: "),
        (format!("{oidc}{routed}"), "line 1, column 2: oidc: "),
        (format!("{routed}post_rate_per_second = 1\n"), "line 5, column 1: routes.0.post_rate_per_second: "),
    ] {
        fs::write(gateway.file(), configuration(&policies)).unwrap();
        let config = eventually("it is refused", Duration::from_secs(10), async || {
            let config = admin.get("/config").await.body;
            config["last_refused"].as_str().is_some_and(|said| said.contains(why)).then_some(config)
        })
        .await;
        let said = config["last_refused"].as_str().unwrap();
        assert!(said.ends_with("changes only at a restart"), "{said}");
        let shown = &config["config"];
        assert_eq!((&shown["rate_per_second"], &shown["oidc"]), (&200.into(), &Value::Null));
        assert!(raw(&gateway, GET).await.starts_with("HTTP/1.1 404"), "{policies}");
    }
    fs::write(gateway.file(), configuration(routed)).unwrap();
    eventually("the new route answers", Duration::from_secs(10), async || {
        raw(&gateway, GET).await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    assert_eq!(admin.get("/config").await.body["last_refused"], Value::Null);
}

#[actix_web::test]
async fn a_changed_file_is_in_force_without_a_signal_and_a_bad_one_is_not() {
    let upstream = Upstream::answering(OK);
    let ports = free_ports();
    let gateway = Gateway::start_with("", ports, &[&upstream]).await.unwrap();
    assert!(raw(&gateway, GET).await.starts_with("HTTP/1.1 404"));
    let routed = "[[routes]]\nid = \"b\"\nprefix = \"/b\"\nservice = \"a\"";
    fs::write(gateway.file(), configuration(routed)).unwrap();
    eventually("the new route answers", Duration::from_secs(10), async || {
        raw(&gateway, GET).await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    fs::write(gateway.file(), configuration("colour = 1")).unwrap();
    let admin = Api::local(ports[1]);
    eventually("the bad file is refused", Duration::from_secs(10), async || {
        let config = admin.get("/config").await.body;
        config["last_refused"].as_str().filter(|why| why.contains("line 1, column 1: ")).map(drop)
    })
    .await;
    assert!(raw(&gateway, GET).await.starts_with("HTTP/1.1 200"), "the file of before is in force");
}

#[actix_web::test]
async fn the_admin_port_leads_to_the_console() {
    let upstream = Upstream::answering(OK);
    let ports = free_ports();
    let _gateway = Gateway::start_with("", ports, &[&upstream]).await.unwrap();
    let admin = ([127, 0, 0, 1], ports[1]).into();
    let said = raw_at(admin, "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 307"), "{said}");
    assert!(said.contains(&format!("location: {CONSOLE}\r\n")), "{said}");
}
