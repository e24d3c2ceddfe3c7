//! The measurements of one round, and their row in the table.

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) struct Round {
    /// From the first request to the last confirmation.
    pub(crate) time: Duration,
    /// From the request to its answer, sorted.
    pub(crate) latencies: Vec<Duration>,
    /// Answered before they were confirmed.
    pub(crate) late: usize,
    /// By service.
    pub(crate) cpu: BTreeMap<String, Duration>,
    /// Bytes, of our programs, by service.
    pub(crate) resident: BTreeMap<String, u64>,
    /// Of one order: transactions that wrote, and all. Those that run without any order are taken off.
    pub(crate) transactions: Option<[f64; 2]>,
}

impl Round {
    /// Milliseconds of processor time for one order, of all programs.
    pub(crate) fn cost(&self) -> f64 {
        self.cpu.keys().map(|service| self.cost_of(service)).sum()
    }

    /// Relative to the cost of the gateway, which stores nothing: so the speed of the machine, which varies,
    /// cancels out.
    pub(crate) fn relative_cost(&self) -> f64 {
        self.cost() / self.cost_of("gateway")
    }

    fn cost_of(&self, service: &str) -> f64 {
        let cpu = self.cpu.get(service).copied().unwrap_or_default();
        1000.0 * cpu.as_secs_f64() / self.latencies.len() as f64
    }

    /// Orders per second.
    pub(crate) fn speed(&self) -> f64 {
        self.latencies.len() as f64 / self.time.as_secs_f64()
    }

    pub(crate) fn head(&self) -> String {
        let mut head =
            format!("{:>8} {:>9} {:>7} {:>7} {:>5}", "stored", "orders/s", "p50 ms", "p99 ms", "late");
        for service in self.cpu.keys() {
            head.push_str(&format!(" {service:>15}"));
        }
        head.push_str(&format!(" {:>7} {:>7}", "all ms", "MB"));
        if self.transactions.is_some() {
            head.push_str(&format!(" {:>7} {:>7}", "writes", "all tx"));
        }
        head
    }

    /// `stored`: orders in the database by then.
    pub(crate) fn row(&self, stored: usize) -> String {
        let at = |share: usize| {
            let latency = self.latencies.get(self.latencies.len() * share / 100).copied();
            latency.unwrap_or_default().as_secs_f64() * 1000.0
        };
        let speed = self.speed();
        let mut row = format!("{stored:>8} {speed:>9.1} {:>7.0} {:>7.0} {:>5}", at(50), at(99), self.late);
        for service in self.cpu.keys() {
            row.push_str(&format!(" {:>15.2}", self.cost_of(service)));
        }
        row.push_str(&format!(
            " {:>7.2} {:>7}",
            self.cost(),
            self.resident.values().sum::<u64>() / 1_000_000
        ));
        for transactions in self.transactions.iter().flatten() {
            row.push_str(&format!(" {transactions:>7.2}"));
        }
        row
    }
}
