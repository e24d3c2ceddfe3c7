//! The shop of bench/peers/node-orders, on the same PostgreSQL and with the same card network, in turn with ours.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bench::customer::Customer;
use bench::database::Database;
use bench::measure::{cpu, usage};
use e2e::{Api, free_ports};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::sleep;
use xtask::process::resident;

use crate::buyers::Buyers;
use crate::round::Round;
use crate::shop::{Crash, Shop};

const FOLDER: &str = "bench/peers/node-orders";
const DATABASES: [&str; 3] = ["node_users", "node_orders", "node_payments"];
/// Servers that both shops use.
const SHARED: [&str; 2] = ["postgres", "card-network"];
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// The time before a service is killed, and before it is started again.
const CRASH: Duration = Duration::from_millis(1000);
/// Orders during which a service is killed.
const CRASH_ORDERS: usize = 600;
/// Ours must get so many times the orders for the same processor time.
const RATIO: f64 = 3.0;

struct Node<'a> {
    shop: &'a Shop,
    buyers: Buyers,
    /// The running services, by name.
    processes: BTreeMap<&'static str, Child>,
    orders: Database,
    /// The command line of each service.
    arguments: BTreeMap<&'static str, Vec<String>>,
}

/// Places as many orders in both shops in turn. Prints rows, the ratio of what they cost, and which promises the
/// peer does not keep. Returns whether ours is cheap enough.
pub(crate) async fn compare(shop: &Shop, orders: usize, rounds: usize) -> Result<bool, String> {
    let databases = shop.peer_databases(&DATABASES).await?;
    let mut node = Node::start(shop, databases).await?;
    node.round(orders / 10).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(shop.round(orders).await?);
        theirs.push(node.round(orders).await?);
    }
    for (name, rounds) in [("ours", &ours), ("Node", &theirs)] {
        println!("\n{name}\n{}", rounds[0].head());
        rounds
            .iter()
            .enumerate()
            .for_each(|(number, round)| println!("{}", round.row((number + 1) * orders)));
    }
    let [ours, theirs] = [ours, theirs].map(|rounds| mean(&rounds));
    let ratio = theirs / ours;
    println!(
        "\nFor a second of processor time, all servers included: ours {:.0} orders, Node {:.0}. Ratio {ratio:.2} \
         (at least {RATIO}).",
        1000.0 / ours,
        1000.0 / theirs
    );
    let is_well = node.print_promises().await;
    node.end().await?;
    is_well.map(|()| ratio >= RATIO)
}

/// The cost of an order in ms, over all rounds.
fn mean(rounds: &[Round]) -> f64 {
    rounds.iter().map(Round::cost).sum::<f64>() / rounds.len() as f64
}

impl<'a> Node<'a> {
    /// `databases`: the URL of the server.
    async fn start(shop: &'a Shop, databases: String) -> Result<Self, String> {
        let [gateway, users, orders, payments] = free_ports();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let service = |port: u16, name: &str| vec![port.to_string(), format!("{databases}/node_{name}")];
        let network = shop.card_network().await?;
        let arguments = BTreeMap::from([
            ("users", service(users, "users")),
            ("orders", [service(orders, "orders"), vec![url(users), url(payments)]].concat()),
            ("payments", [service(payments, "payments"), vec![network]].concat()),
            ("gateway", vec![gateway.to_string(), url(users), url(orders), url(payments)]),
        ]);
        let processes: Result<BTreeMap<_, _>, String> =
            arguments.iter().map(|(name, arguments)| Ok((*name, spawn(name, arguments)?))).collect();
        let (processes, api) = (processes?, Api::local(gateway));
        let begun = Instant::now();
        let product = json!({ "name": "Something to buy", "price": { "amount": 1_250, "currency": "EUR" }, "stock": 1_000_000 });
        let product = loop {
            let made = api.try_send(actix_web::http::Method::POST, "/api/products", Some(&product)).await;
            if let Some(reply) = made.filter(|reply| reply.status == 201) {
                break reply.body["id"].as_str().unwrap_or_default().to_owned();
            }
            if begun.elapsed() > START_TIMEOUT {
                return Err("The services of Node do not start.".to_owned());
            }
            sleep(Duration::from_millis(100)).await;
        };
        let mut customers = Vec::new();
        for _ in 0..shop.buyers().customers.len() {
            customers.push(Customer::register(&api).await.ok_or("Nobody can register with Node.")?);
        }
        let orders = shop.database("node_orders").await?;
        let buyers = Buyers { customers, product, wait: 0 };
        Ok(Self { shop, buyers, processes, orders, arguments })
    }

    async fn round(&self, orders: usize) -> Result<Round, String> {
        let (before, begun) = (self.spent().await, Instant::now());
        let (mut latencies, late) = self.buyers.place(orders).await?;
        let time = begun.elapsed();
        let cpu = self.spent().await.into_iter().map(|(name, spent)| {
            let before = before.get(&name).copied().unwrap_or_default();
            (name, spent.saturating_sub(before))
        });
        let cpu = cpu.collect();
        latencies.sort();
        let bytes = |(name, child): (&&str, &Child)| Some((format!("node {name}"), resident(child.id()?)?));
        let resident = self.processes.iter().filter_map(bytes).collect();
        Ok(Round { time, latencies, late, cpu, resident, transactions: None })
    }

    async fn spent(&self) -> BTreeMap<String, Duration> {
        let shared = usage(self.shop.environment()).await.into_iter();
        let shared = shared.filter(|(name, _)| SHARED.contains(&name.as_str()));
        let own = |(name, child): (&&str, &Child)| Some((format!("node {name}"), cpu(child.id()?)?));
        shared.map(|(name, usage)| (name, usage.cpu)).chain(self.processes.iter().filter_map(own)).collect()
    }

    /// Tries out what happens to a repeated request, and in a crash, in both shops.
    async fn print_promises(&mut self) -> Result<(), String> {
        println!("\n{:<64} {:>8} {:>8}", "", "ours", "Node");
        let [ours, theirs] = [self.shop.buyers().twice().await?, self.buyers.twice().await?];
        println!("{:<64} {ours:>8} {theirs:>8}", "orders made by one POST that a client sent twice");
        let ours = self.shop.crash(CRASH_ORDERS, CRASH).await?;
        let theirs = self.crash().await?;
        println!("{:<64}", "a replica of the orders' service is killed (-9) under load:");
        for (what, ours, theirs) in [
            ("  orders that were answered with 201", ours.answered, theirs.answered),
            ("  orders that were stored", ours.stored, theirs.stored),
            ("  orders that stay neither confirmed nor rejected", ours.open, theirs.open),
            ("  cards charged", ours.charged, theirs.charged),
        ] {
            println!("{what:<64} {ours:>8} {theirs:>8}");
        }
        Ok(())
    }

    /// Kills the service of the orders under load, and starts it again. Clients send again until they are answered.
    async fn crash(&mut self) -> Result<Crash, String> {
        let network = self.shop.database("card-network").await?;
        let ([stored, open], charged) = (self.orders.orders().await?, network.charges(true).await?);
        let orders = self.processes.get_mut("orders").ok_or("There is no process.")?;
        let arguments = &self.arguments["orders"];
        let crash = async {
            sleep(CRASH).await;
            orders.kill().await.map_err(|error| error.to_string())?;
            sleep(CRASH).await;
            *orders = spawn("orders", arguments)?;
            Ok::<(), String>(())
        };
        let (placed, crashed) = futures_util::join!(self.buyers.place(CRASH_ORDERS), crash);
        crashed?;
        let [stored_now, open_now] = self.orders.orders().await?;
        Ok(Crash {
            answered: placed?.0.len() as i64,
            stored: stored_now - stored,
            open: open_now - open,
            charged: network.charges(true).await? - charged,
        })
    }

    async fn end(mut self) -> Result<(), String> {
        for child in self.processes.values_mut() {
            child.kill().await.map_err(|error| error.to_string())?;
        }
        self.shop.forget_peer(&DATABASES).await
    }
}

fn spawn(name: &str, arguments: &[String]) -> Result<Child, String> {
    let script = Path::new(FOLDER).join(name).with_extension("js");
    let mut node = Command::new("node");
    node.arg(script).args(arguments).kill_on_drop(true);
    node.spawn().map_err(|error| format!("node: {error}"))
}
