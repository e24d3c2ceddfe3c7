//! A steady load while something breaks, and the account of it afterwards.
//!
//! Customers read, and place orders under keys, trying again under the same key until the order is there.
//! On SIGTERM this stops, waits for everything to rest, and compares all books. It prints one line of
//! `name=value`: what was done, and where each invariant is broken. It ends with 1 if one is.
//! `scripts/faults` runs it.

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::time::Duration;

use bench::customer::Customer;
use bench::diary::Diary;
use bench::rest::at_rest;
use bench::site::{Site, SiteConfig};
use bench::trade::{Deal, TOKENS, Then, browse, carry_out};
use futures_util::future::{join, join_all};
use shared::config::{ConfigError, Vars};

struct Config {
    site: SiteConfig,
    customers: usize,
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let config = Self {
            site: SiteConfig::from_vars(&mut vars),
            customers: vars.or("CUSTOMERS", "4", "how many read and order at a time"),
        };
        vars.finish(config)
    }
}

const BETWEEN_ORDERS: Duration = Duration::from_millis(200);
const REST: Duration = Duration::from_secs(90);

#[actix_web::main]
async fn main() -> ExitCode {
    let config = shared::config::load(Config::from_vars);
    bench::exit(run(config).await)
}

async fn run(config: Config) -> Result<bool, String> {
    let stop = bench::told_to_end()?;
    let site = Site::open(config.site).await?;
    let customers = site.customers(config.customers).await.ok_or("Nobody can register.")?;
    let product = site.product(1_000_000).await.ok_or("No product can be made.")?;
    let (diary, next) = (RefCell::new(Diary::default()), Cell::new(0));
    let buy = async |customer: &Customer| {
        while !stop.is_requested() {
            let number = next.replace(next.get() + 1);
            let token = TOKENS[number % TOKENS.len()];
            let deal = Deal {
                number,
                product: product.clone(),
                quantity: 1,
                is_scarce: false,
                token,
                then: Then::Leave,
            };
            carry_out(&deal, customer, &site.admin, &diary).await;
            tokio::time::sleep(BETWEEN_ORDERS).await;
        }
    };
    println!("running");
    let each = customers.iter().map(|customer| join(browse(customer, &diary, &stop), buy(customer)));
    join_all(each).await;

    let diary = diary.into_inner();
    let ids = customers.iter().map(|customer| customer.id.clone()).collect();
    let rested = at_rest(&site, &diary, &ids, REST).await.ok_or("The books cannot be read.")?;
    print!(
        "gets={} gets_failed={} orders={} retries={} rest_s={:.1} broken={}",
        diary.reads,
        diary.reads_failed,
        diary.orders.len(),
        diary.retries,
        rested.after.as_secs_f64(),
        rested.invariants.iter().map(|invariant| invariant.broken.len()).sum::<usize>(),
    );
    for invariant in &rested.invariants {
        print!(" {}={}", invariant.name, invariant.broken.len());
        invariant.broken.iter().for_each(|broken| eprintln!("{}: {broken}", invariant.promise));
    }
    println!();
    Ok(rested.holds())
}
