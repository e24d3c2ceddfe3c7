//! Fills the databases with copies of orders, and measures orders, reads and starts at each size.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bench::database::copies::SPACING;
use tokio::time::Instant;

use crate::reads::Latency;
use crate::round::Round;
use crate::shop::Shop;

/// Copies of all originals that are made in one transaction.
const COPIES: u32 = 5;
/// Rounds at each size. The cheaper one counts, because other programs disturb some.
const ROUNDS: usize = 2;
/// Maximum of the cost of an order at the last size, relative to the first.
const COST: f64 = 1.1;
/// Maximum of the memory of our programs in the end, relative to the second size.
const MEMORY: f64 = 1.15;
const START: Duration = Duration::from_secs(1);
/// Maximum of the 99th percentile of a read at the last size, relative to the first.
const LATENCY: u32 = 2;
/// The difference between two measurements of the same read that is no slowdown.
const NOISE: Duration = Duration::from_millis(1);

/// Prints what it measures, and returns whether every bound and every promise holds. `stored` orders exist. `orders` of
/// them more are placed in each round; those of the first round are copied until there are as many as `sizes` say.
pub(crate) async fn run(
    shop: &Shop,
    mut stored: usize,
    orders: usize,
    sizes: &[usize],
) -> Result<bool, String> {
    let begun = SystemTime::now();
    let first = shop.round(orders).await?;
    let originals = shop.originals(begun, SystemTime::now());
    let second = shop.round(orders).await?;
    stored += ROUNDS * orders;
    let mut rounds = vec![cheaper(first, second)];
    println!("{}\n{}", rounds[0].head(), rounds[0].row(stored));
    let almost_empty = shop.reader().await?.latencies(middle(begun)).await?;
    let mut copies = 0;
    for size in sizes {
        let filling = Instant::now();
        let missing = size.saturating_sub(stored + ROUNDS * orders).div_ceil(orders);
        let end = copies + u32::try_from(missing).map_err(|error| error.to_string())?;
        while copies < end {
            let next = end.min(copies + COPIES);
            shop.copy(&originals, copies + 1..next + 1).await?;
            copies = next;
        }
        shop.tidy().await?;
        println!("        {} copies were made in {:.0} s", missing * orders, filling.elapsed().as_secs_f64());
        let round = cheaper(shop.round(orders).await?, shop.round(orders).await?);
        stored += (missing + ROUNDS) * orders;
        println!("{}", round.row(stored));
        rounds.push(round);
    }
    let full = shop.reader().await?.latencies(middle(begun - SPACING * copies)).await?;
    let resident = shop.resident().await;
    println!("\n{stored} orders are stored.");
    let held = [
        cost(&rounds),
        memory(&rounds, &resident),
        reads(&almost_empty, &full),
        start(shop).await?,
        shop.print_books().await?,
    ];
    shop.print_kept().await?;
    shop.age().await?;
    let pruned = shop.pruned().await?;
    println!("All of these were made eight days old, and deleted within {:.0} s.", pruned.as_secs_f64());
    shop.print_tables().await?;
    Ok(held.into_iter().all(|held| held))
}

fn cheaper(one: Round, other: Round) -> Round {
    if one.relative_cost() < other.relative_cost() { one } else { other }
}

/// The time halfway between `begin` and now.
fn middle(begin: SystemTime) -> SystemTime {
    begin + begin.elapsed().unwrap_or_default() / 2
}

fn verdict(holds: bool) -> &'static str {
    if holds { "✓" } else { "✗" }
}

/// Prints how the cost of an order changed, and checks it. An order that costs more does so in ms and relative to the
/// gateway. In ms alone, the machine became slower. Relative to the gateway alone, the gateway became cheaper: its cost is
/// measured in steps of 10 ms.
fn cost(rounds: &[Round]) -> bool {
    let [first, .., last] = rounds else { return true };
    let (absolute, relative) = (last.cost() / first.cost(), last.relative_cost() / first.relative_cost());
    let holds = relative.min(absolute) <= COST;
    println!(
        "{} the processor time of an order is {absolute:.2} times that of the first row, and {relative:.2} times \
         relative to the gateway (one of them at most {COST})",
        verdict(holds)
    );
    holds
}

/// Prints the memory of each program at the second size and in the end, and checks the sum.
fn memory(rounds: &[Round], end: &BTreeMap<String, u64>) -> bool {
    let [_, second, ..] = rounds else { return true };
    let sum = |resident: &BTreeMap<String, u64>| resident.values().sum::<u64>() as f64;
    let factor = sum(end) / sum(&second.resident);
    let holds = factor <= MEMORY;
    println!(
        "{} the memory of our programs is {factor:.2} times that of the second row (at most {MEMORY}), in MB:",
        verdict(holds)
    );
    for (service, bytes) in end {
        let before = second.resident.get(service).copied().unwrap_or_default();
        println!("    {service:<36} {:>8} {:>8}", before / 1_000_000, bytes / 1_000_000);
    }
    holds
}

/// Prints how long reads take at the first and the last size, and checks the 99th percentiles.
fn reads(before: &[Latency], after: &[Latency]) -> bool {
    let holds =
        |(before, after): (&Latency, &Latency)| after.p99 <= (LATENCY * before.p99).max(before.p99 + NOISE);
    let all_hold = before.iter().zip(after).all(holds);
    println!(
        "{} the p99 of every read is at most {LATENCY} times that of the first row, or 1 ms more; in ms:",
        verdict(all_hold)
    );
    println!("    {:<36} {:>8} {:>8} {:>8} {:>8}", "", "p50", "then", "p99", "then");
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    for (before, after) in before.iter().zip(after) {
        println!(
            "  {} {:<36} {:>8.2} {:>8.2} {:>8.2} {:>8.2}",
            verdict(holds((before, after))),
            before.name,
            ms(before.p50),
            ms(after.p50),
            ms(before.p99),
            ms(after.p99)
        );
    }
    all_hold
}

/// Restarts a replica of each service with orders or payments. Prints how long each took, and checks it.
async fn start(shop: &Shop) -> Result<bool, String> {
    let mut all_hold = true;
    for service in ["order-service", "payment-service"] {
        let time = shop.start(service).await?;
        let holds = time < START;
        println!(
            "{} a replica of {service} is ready {:.2} s after its start (less than {} s)",
            verdict(holds),
            time.as_secs_f64(),
            START.as_secs()
        );
        all_hold &= holds;
    }
    Ok(all_hold)
}
