//! Clients that people use, with their defaults, against the whole system. `clients/README.md` says what each does. A
//! client that is not here is skipped and counted; with `CI=true` it must be here, but for Go.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Person, Stack};
use serde_json::{Value, json};
use shared::testing::{key, skip};
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(90);

/// A running shop with a customer.
struct Shop {
    stack: Stack,
    ann: Person,
    product: String,
}

impl Shop {
    async fn open() -> Self {
        let stack = Stack::start().await;
        let ann = stack.register().await;
        let product = ann.product().await["id"].as_str().unwrap().to_owned();
        Self { stack, ann, product }
    }

    /// Runs a client to its end, which must be good.
    async fn serves(&self, program: &Path, arguments: &[&str]) {
        let token = self.ann.api.token.clone().unwrap();
        let mut client = Command::new(program);
        client.args(arguments).env("BASE", &self.stack.public.base).env("TOKEN", token);
        client.env("PRODUCT", &self.product).env("NO_PROXY", "127.0.0.1").kill_on_drop(true);
        let output = tokio::time::timeout(TIMEOUT, client.output()).await.expect("it ends").unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}

/// Whether a command ends well; by that a client is here.
async fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().await.is_ok_and(|output| output.status.success())
}

/// Whether the client is installed. If not, the test is skipped; with `CI=true` it fails.
async fn is_here(client: &str, program: &str, arguments: &[&str]) -> bool {
    let is_here = succeeds(program, arguments).await;
    if !is_here {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{client} is missing");
        skip(&format!("with a client: {client} is missing"));
    }
    is_here
}

fn file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name).display().to_string()
}

/// What curl received.
struct Received {
    status: u16,
    version: String,
    kind: String,
    body: String,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {}", self.body))
    }
}

async fn curl(arguments: &[&str]) -> Received {
    // No ~/.curlrc; what is asked for comes after the body, in a line of its own.
    let format = "\n%{http_code} %{http_version} %{content_type}";
    let mut curl = Command::new("curl");
    curl.args(["-q", "--silent", "--show-error", "--max-time", "20", "--write-out", format]).args(arguments);
    let output = curl.env("NO_PROXY", "127.0.0.1").output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, seen) = text.rsplit_once('\n').unwrap();
    let words: Vec<&str> = seen.splitn(3, ' ').collect();
    let [status, version, kind] = words[..] else { panic!("{text}") };
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || why.contains("timed out"), "{arguments:?}: {why}");
    Received {
        status: status.parse().unwrap(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        body: body.to_owned(),
    }
}

/// The five requests, with this option.
async fn curl_is_served(option: &str, version: &str) {
    let shop = Shop::open().await;
    let url = |path: &str| format!("{}{path}", shop.stack.public.base);
    let token = format!("authorization: Bearer {}", shop.ann.api.token.clone().unwrap());
    let with = async |more: &[&str]| curl(&[&[option, "--header", &token], more].concat()).await;

    let products = with(&[&url("/api/products")]).await;
    // curl writes 1.0 as 1 or as 1.0.
    let spoken = products.version.trim_end_matches(".0");
    assert_eq!((products.status, spoken), (200, version), "{}", products.body);
    assert!(!products.json()["products"].as_array().unwrap().is_empty());

    let lines = json!([{ "product_id": shop.product, "quantity": 1 }]);
    let order = json!({ "lines": lines, "payment_token": "tok_visa" }).to_string();
    let key = format!("idempotency-key: {}", key());
    let order_url = url("/api/orders");
    let place =
        ["--header", "content-type: application/json", "--header", &key, "--data", &order, &order_url];
    let (first, again) = (with(&place).await, with(&place).await);
    assert_eq!((first.status, again.status), (201, 201), "{} {}", first.body, again.body);
    assert_eq!(first.json()["id"], again.json()["id"]);

    // The stream does not end; curl leaves after a while.
    let id = first.json()["id"].clone();
    shop.ann.order_reaches(&first.json(), "confirmed").await;
    let events = url(&format!("/api/orders/{}/events", id.as_str().unwrap()));
    let stream = with(&["--no-buffer", "--max-time", "2", &events]).await;
    assert_eq!(stream.kind, "text/event-stream");
    assert!(stream.body.contains("event: order.confirmed\n"), "{}", stream.body);

    let head = with(&["--head", "--output", "/dev/null", &url("/api/products")]).await;
    assert_eq!((head.status, &*head.body), (200, ""));

    let nothing = with(&[&url("/api/nothing")]).await;
    assert_eq!((nothing.status, &*nothing.kind), (404, "application/problem+json"));
    assert_eq!(nothing.json()["code"], "not_found");
}

#[actix_web::test]
async fn curl_is_served_over_http_1_0() {
    if is_here("curl", "curl", &["--version"]).await {
        curl_is_served("--http1.0", "1").await;
    }
}

#[actix_web::test]
async fn curl_is_served_over_http_1_1() {
    if is_here("curl", "curl", &["--version"]).await {
        curl_is_served("--http1.1", "1.1").await;
    }
}

/// The upgrade is asked for with the body of a POST, too, and passed over.
#[actix_web::test]
async fn curl_that_asks_for_an_upgrade_to_http_2_is_served() {
    if is_here("curl", "curl", &["--version"]).await {
        curl_is_served("--http2", "1.1").await;
    }
}

#[actix_web::test]
async fn javas_http_client_is_served() {
    // A file is run only where the compiler is.
    if is_here("a JDK", "java", &["--describe-module", "jdk.compiler"]).await {
        Shop::open().await.serves("java".as_ref(), &[&file("Client.java")]).await;
    }
}

#[actix_web::test]
async fn pythons_http_client_is_served() {
    if is_here("Python", "python3", &["--version"]).await {
        Shop::open().await.serves("python3".as_ref(), &[&file("http_client.py")]).await;
    }
}

#[actix_web::test]
async fn httpx_is_served() {
    let venv: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("httpx");
    let python = venv.join("bin/python");
    let path = python.display().to_string();
    if !succeeds(&path, &["-c", "import httpx"]).await {
        succeeds("python3", &["-m", "venv", &venv.display().to_string()]).await;
        succeeds(&path, &["-m", "pip", "install", "--quiet", "httpx==0.28.*"]).await;
    }
    if is_here("httpx", &path, &["-c", "import httpx"]).await {
        Shop::open().await.serves(&python, &[&file("httpx_client.py")]).await;
    }
}

#[actix_web::test]
async fn the_fetch_of_node_is_served() {
    if is_here("Node 18", "node", &["--eval", "process.exit(typeof fetch === 'function' ? 0 : 1)"]).await {
        Shop::open().await.serves("node".as_ref(), &[&file("fetch.mjs")]).await;
    }
}

#[actix_web::test]
async fn the_http_client_of_go_is_served() {
    // Large, so that CI has it only if the machine has.
    if succeeds("go", &["version"]).await {
        Shop::open().await.serves("go".as_ref(), &["run", &file("client.go")]).await;
    } else {
        skip("with a client: Go is missing");
    }
}
