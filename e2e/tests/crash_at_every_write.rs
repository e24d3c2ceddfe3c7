//! A crash between any two writes. In each round two orders are paid, cancelled and refunded at the same time, so that
//! some transactions of the inbox handle several messages. In the first round a service crashes at its first write, in
//! the second at its second, and so on to its last write. This is repeated until it has crashed at every kind of write.
//!
//! Each program is a process here. order-service or payment-service crashes: it aborts before a writing statement, before a commit, or
//! after it. It loses all uncommitted changes and its memory. A new process replaces it, and the order
//! continues.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use actix_web::http::Method;
use e2e::{Api, Person, eventually, free_ports, key};
use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::config::Vars;
use shared::db::{Db, DbConfig, Migrations, now, query, testing};
use uuid::Uuid;
use xtask::Secrets;

/// The writes of each service: it has to crash at every one.
const WRITES: [(&str, &[&str]); 2] = [
    (
        "order-service",
        &[
            "INSERT INTO idempotency_keys",
            "INSERT INTO orders",
            "INSERT INTO order_events",
            "WITH wanted (product_id, quantity)",
            "INSERT INTO outbox",
            "UPDATE idempotency_keys",
            "UPDATE outbox SET sent_at",
            "INSERT INTO inbox",
            "UPDATE orders",
            "UPDATE stock SET reserved",
            "UPDATE stock SET sold",
            "COMMIT",
            "go on after COMMIT",
        ],
    ),
    (
        "payment-service",
        &[
            "INSERT INTO inbox",
            "INSERT INTO payments",
            "UPDATE payments",
            "INSERT INTO outbox",
            "UPDATE outbox SET sent_at",
            "INSERT INTO ledger_entries",
            "INSERT INTO ledger_totals",
            "INSERT INTO refunds",
            "COMMIT",
            "go on after COMMIT",
        ],
    ),
];

#[actix_web::test]
async fn order_service_may_crash_at_any_write() {
    join_all(testing::urls().await.into_iter().map(|url| crash_at_every_write(0, url))).await;
}

#[actix_web::test]
async fn payment_service_may_crash_at_any_write() {
    join_all(testing::urls().await.into_iter().map(|url| crash_at_every_write(1, url))).await;
}

async fn crash_at_every_write(service: usize, database_url: String) {
    let (name, writes) = WRITES[service];
    let mut shop = Shop::open(name, database_url).await;
    let mut write = 1;
    for round in 1.. {
        let before = shop.crashes;
        shop.crash_at(write);
        shop.sell_and_refund(round).await;
        shop.crash_at(0);
        write += 1;
        if shop.crashes == before {
            let log = std::fs::read_to_string(&shop.crashing.log).unwrap();
            let missed = |write: &&&str| !log.contains(&format!("crashed when about to {write}"));
            let missed: Vec<_> = writes.iter().filter(missed).collect();
            let (crashes, batches) = (shop.crashes, shop.batches);
            eprintln!("{name} crashed at {crashes} writes on {}, with {batches} batches", shop.db.kind());
            if missed.is_empty() && batches > 0 {
                return;
            }
            // Concurrent writes have another order in each round, so some may have been missed.
            assert!(round < 150, "{batches} batches, and never crashed when about to {missed:?}");
            write = 1;
        }
    }
}

const ADMIN_EMAIL: &str = "admin@example.com";
const ADMIN_PASSWORD: &str = "correct horse battery";
const TIMEOUT: Duration = Duration::from_secs(60);
/// Orders of a round.
const ORDERS: usize = 2;

const SERVICE: &str = "SERVICE";
const VARIABLES: [&str; 11] = [
    "PORT",
    "DATABASE_URL",
    "REGISTRY_URL",
    "SERVICE_TOKEN_KEY_FILE",
    "SERVICE_TOKEN_PUBLIC_KEYS",
    "SIGNING_KEY_FILE",
    "SEAL_KEY_FILE",
    "CARD_NETWORK_URL",
    "ADMIN_EMAIL",
    "ADMIN_PASSWORD",
    "SEED_PRODUCTS",
];

/// The main function of every process, not a test. It reads from standard input at which write to crash.
#[actix_web::test]
async fn program() {
    let Ok(service) = std::env::var(SERVICE) else { return };
    std::thread::spawn(|| {
        std::io::stdin().lines().for_each(|line| testing::crash_at(line.unwrap().parse().unwrap()));
    });
    let values = VARIABLES.map(|name| (name, std::env::var(name).unwrap()));
    let vars = Vars::from_pairs(values.each_ref().map(|(name, value)| (*name, value.as_str())));
    let server = match service.as_str() {
        "order-service" => {
            order_service::app::build(order_service::config::Config::from_vars(vars).unwrap()).await
        }
        "payment-service" => {
            payment_service::app::build(payment_service::config::Config::from_vars(vars).unwrap()).await
        }
        "card-network" => {
            use payment_service::card_network::{app, config::Config};
            app::build(Config::from_vars(vars).unwrap()).await
        }
        _ => user_service::app::build(user_service::config::Config::from_vars(vars).unwrap()).await,
    };
    server.unwrap().run().await.unwrap();
}

/// A process, killed when it is dropped.
struct Program {
    api: Api,
    command: Command,
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(folder: &Path, name: &str, port: u16, variables: &[(&str, String)]) -> Self {
        let log = folder.join(name);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "program", "--nocapture"]).env(SERVICE, name).env("PORT", port.to_string());
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let child = command.spawn().unwrap();
        Self { api: Api::local(port), command, child, log }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// `None` if one of them has no value.
async fn all<T>(values: impl Iterator<Item = impl Future<Output = Option<T>>>) -> Option<Vec<T>> {
    join_all(values).await.into_iter().collect()
}

/// The processes, one of which crashes, and a customer.
struct Shop {
    crashing: Program,
    crashes: usize,
    /// Transactions that handled several messages. Those of a process that then crashed are not counted.
    batches: usize,
    /// The database of the crashing service.
    db: Db,
    customer: Api,
    /// The two services, with an admin's token.
    orders: Api,
    payments: Api,
    network: Api,
    product: Value,
    _others: Vec<Program>,
}

impl Shop {
    async fn open(crashing: &str, database_url: String) -> Self {
        let folder = std::env::temp_dir().join(format!("crashes-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        let secrets = Secrets::make(&folder).unwrap();
        let names = ["order-service", "payment-service", "card-network", "user-service"];
        let ports: [u16; 4] = free_ports();
        let apis = ports.map(Api::local);
        let listed: Vec<_> =
            names.iter().zip(&apis).map(|(name, api)| format!("{name}={}", api.base)).collect();
        let mut programs: Vec<_> = names
            .into_iter()
            .zip(ports)
            .map(|(name, port)| {
                let database_url =
                    if name == crashing { database_url.clone() } else { testing::sqlite_url() };
                let variables = [
                    ("DATABASE_URL", database_url),
                    ("REGISTRY_URL", format!("static://{}", listed.join(";"))),
                    ("SERVICE_TOKEN_KEY_FILE", secrets.service_key(name).display().to_string()),
                    ("SERVICE_TOKEN_PUBLIC_KEYS", secrets.public_keys().display().to_string()),
                    ("SEAL_KEY_FILE", secrets.seal_key().display().to_string()),
                    ("SIGNING_KEY_FILE", secrets.signing_key().display().to_string()),
                    ("CARD_NETWORK_URL", apis[2].base.clone()),
                    ("ADMIN_EMAIL", ADMIN_EMAIL.to_owned()),
                    ("ADMIN_PASSWORD", ADMIN_PASSWORD.to_owned()),
                    ("SEED_PRODUCTS", "on".to_owned()),
                ];
                Program::start(&folder, name, port, &variables)
            })
            .collect();
        for api in &apis {
            eventually("a program is ready", TIMEOUT, || api.try_get("/health/ready")).await;
        }
        let [orders, payments, network, users] = apis;
        let admin = Person::log_in(&users, ADMIN_EMAIL, ADMIN_PASSWORD).await.api.token.unwrap();
        let customer = Person::register(&users).await.api.token.unwrap();
        let crashing = programs.remove(usize::from(crashing != names[0]));
        let products = orders.get("/api/products?limit=1").await.expect(200);
        Self {
            crashing,
            crashes: 0,
            batches: 0,
            db: Db::open(&DbConfig::at(&database_url), Migrations::none()).await.unwrap(),
            customer: orders.with_token(&customer),
            orders: orders.with_token(&admin),
            payments: payments.with_token(&admin),
            network,
            product: products["products"][0].clone(),
            _others: programs,
        }
    }

    /// Lets the service crash at its `write`th write from now on. 0 means never.
    fn crash_at(&mut self, write: usize) {
        let sent = writeln!(self.crashing.child.stdin.as_ref().unwrap(), "{write}");
        sent.unwrap_or_else(|_| assert_eq!(write, 0, "it has crashed already"));
    }

    /// A customer places some orders, pays them, cancels them and gets refunds. Each request is repeated until it
    /// succeeds.
    async fn sell_and_refund(&mut self, round: usize) {
        let lines = json!([{ "product_id": self.product["id"], "quantity": 2 }]);
        let (keys, body) =
            ([(); ORDERS].map(|()| key()), json!({ "lines": lines, "payment_token": "tok_visa" }));
        let placed = self.until("the orders are placed", async |shop| {
            let place = async |key: &String| {
                let client = shop.customer.with_key(key);
                let reply = client.try_send(Method::POST, "/api/orders", Some(&body)).await;
                reply.filter(|reply| reply.status == 201).map(|reply| reply.body)
            };
            all(keys.iter().map(place)).await
        });
        let placed = placed.await;
        let paths: Vec<_> =
            placed.iter().map(|placed| format!("/api/orders/{}", placed["id"].as_str().unwrap())).collect();
        self.until_are(&paths, "confirmed").await;
        self.until("the cancellations are accepted", async |shop| {
            let cancel = async |(path, key): (&String, &String)| {
                let client = shop.customer.with_key(key);
                let reply = client.try_send(Method::POST, &format!("{path}/cancel"), None).await;
                reply.filter(|reply| reply.status == 202).map(drop)
            };
            all(paths.iter().zip(&keys).map(cancel)).await
        })
        .await;
        self.until_are(&paths, "refunded").await;
        self.until("nothing is left to send", async |shop| {
            for api in [&shop.orders, &shop.payments] {
                let outbox = api.try_get("/admin/outbox").await.filter(|outbox| outbox.body["pending"] == 0);
                outbox?;
            }
            Some(())
        })
        .await;
        self.batches += self.until("the metrics are read", async |shop| shop.batches().await).await;
        for (placed, path) in placed.iter().zip(&paths) {
            self.check_order(placed, path).await;
        }
        self.check_all(ORDERS * round).await;
    }

    /// How many transactions of the crashing service handled several messages, since its start.
    async fn batches(&self) -> Option<usize> {
        let metrics = self.crashing.api.try_get("/metrics").await?.text();
        let value = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            line.map_or(0, |value| value.trim().parse().unwrap())
        };
        let alone = value("inbox_batch_events_bucket{le=\"1\"}");
        Some(value("inbox_batch_events_count") - alone)
    }

    /// Checks that the result is the same as without crashes.
    async fn check_order(&self, placed: &Value, path: &str) {
        let charges =
            self.network.get(&format!("/statement?order_id={}", placed["id"].as_str().unwrap())).await;
        let charges = charges.expect(200)["charges"].clone();
        let total = &placed["total"]["amount"];
        let charge = &charges[0];
        assert_eq!(charges.as_array().unwrap().len(), 1, "{charges}");
        assert_eq!((&charge["captured"], &charge["refunded"]), (total, total), "{charge}");
        assert_eq!(charge["times_captured"], 1, "{charge}");

        let timeline = self.customer.get(&format!("{path}/timeline")).await.expect(200);
        let changes = timeline["events"].as_array().unwrap();
        assert!(changes.windows(2).all(|pair| pair[1]["from"] == pair[0]["to"]), "{timeline}");
    }

    async fn check_all(&self, count: usize) {
        let orders = self.customer.get("/api/orders?limit=100").await.expect(200);
        assert_eq!(orders["orders"].as_array().unwrap().len(), count.min(100), "one order per key");
        let product =
            self.orders.get(&format!("/api/products/{}", self.product["id"].as_str().unwrap())).await;
        assert_eq!(product.expect(200)["available"], self.product["available"]);
        let ledger = self.payments.get("/admin/ledger").await.expect(200);
        assert_eq!((&ledger["sum"], &ledger["entries"]), (&json!(0), &json!(4 * count)));
        for api in [&self.orders, &self.payments] {
            assert_eq!(api.get("/admin/dead-letters").await.expect(200)["dead_letters"], json!([]));
        }
    }

    async fn until_are(&mut self, paths: &[String], status: &str) {
        self.until(status, async |shop| {
            let has_status = async |path: &String| {
                let order = shop.customer.try_get(path).await?.body;
                (order["status"] == status).then_some(())
            };
            all(paths.iter().map(has_status)).await
        })
        .await;
    }

    /// Repeats `probe` until it returns a value. Restarts the service if it has crashed.
    async fn until<T>(&mut self, what: &str, mut probe: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            if self.crashing.child.try_wait().unwrap().is_some() {
                self.restart().await;
            }
            if let Some(value) = probe(self).await {
                return value;
            }
            assert!(tokio::time::Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a new process in place of the crashed one, and lets the claims and leases of that one expire
    /// immediately.
    async fn restart(&mut self) {
        self.crashes += 1;
        let expire = query("UPDATE outbox SET next_at = $1 WHERE sent_at IS NULL AND next_at > $1");
        expire.bind(now()).execute(&self.db).await.unwrap();
        if self.crashing.api.base == self.payments.base {
            let expire = query("UPDATE payments SET due_at = $1 WHERE due_at > $1");
            expire.bind(now()).execute(&self.db).await.unwrap();
        }
        let log = File::options().append(true).open(&self.crashing.log).unwrap();
        self.crashing.child = self.crashing.command.stderr(log).spawn().unwrap();
    }
}
