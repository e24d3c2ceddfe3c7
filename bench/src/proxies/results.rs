//! The results, and their tables.

use super::case::{Case, Policies};
use super::client::Latency;
use super::lab::Peer;
use super::wrk::Run;

/// One proxy in one case, in all rounds.
pub struct Row {
    pub policies: Policies,
    pub case: Case,
    pub peer: Peer,
    pub runs: Vec<Run>,
    /// Latencies at half of nginx's highest rate.
    pub latencies: Vec<Latency>,
}

/// The costs of one proxy besides processor time.
pub struct Cost {
    pub peer: Peer,
    /// Bytes for an idle connection.
    pub idle: f64,
    /// The same over TLS; `None` if it was not measured.
    pub idle_tls: Option<f64>,
    /// Bytes for a connection with large bodies.
    pub busy: f64,
    /// User instructions for a request; `None` if they were not counted.
    pub instructions: Option<f64>,
}

/// A client that got less than this part of its rate was not served.
const SERVED: f64 = 0.95;

impl Row {
    pub fn rate(&self) -> f64 {
        median(self.runs.iter().map(|run| run.rate))
    }

    pub fn cpu(&self) -> f64 {
        median(self.runs.iter().map(|run| run.cpu))
    }

    /// Requests per processor time, divided by those of `other`: the median of the ratios of each round, so that the
    /// speed of the machine cancels out.
    pub fn work_against(&self, other: &Self) -> f64 {
        median(other.runs.iter().zip(&self.runs).map(|(other, own)| other.cpu / own.cpu))
    }

    /// Medians of p50 and p99 in microseconds; `None` if the proxy is slower than the rate.
    pub fn latency(&self) -> Option<(f64, f64)> {
        let served =
            self.latencies.iter().all(|latency| latency.achieved > SERVED) && !self.latencies.is_empty();
        served.then(|| {
            let of = |value: fn(&Latency) -> f64| median(self.latencies.iter().map(value));
            (of(|latency| latency.p50), of(|latency| latency.p99))
        })
    }
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values[..] {
        [] => 0.0,
        _ if values.len() % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The row of another proxy in the same case.
pub fn beside<'a>(rows: &'a [Row], row: &Row, policies: Policies, peer: Peer) -> Option<&'a Row> {
    rows.iter().find(|other| other.policies == policies && other.case == row.case && other.peer == peer)
}

/// A table for reading: a line for each case and proxy. The ratios are work for processor time, above 1 where the
/// proxy does more: against nginx with the same policies, and, with everything on, against bare nginx.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<30} {:<14} {:<8} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}\n",
        "case", "policies", "proxy", "req/s", "CPU µs", "×nginx", "×bare", "p50 µs", "p99 µs"
    );
    for row in rows {
        let ratio = |policies| {
            let nginx = beside(rows, row, policies, Peer::Nginx).filter(|nginx| !std::ptr::eq(*nginx, row));
            nginx.map_or("-".to_owned(), |nginx| format!("{:.2}", row.work_against(nginx)))
        };
        let same = ratio(row.policies);
        let bare = if row.policies == Policies::Bare { "-".to_owned() } else { ratio(Policies::Bare) };
        let (p50, p99) = row.latency().map_or(("-".to_owned(), "-".to_owned()), |(p50, p99)| {
            (format!("{p50:.0}"), format!("{p99:.0}"))
        });
        text.push_str(&format!(
            "{:<30} {:<14} {:<8} {:>9.0} {:>9.1} {same:>8} {bare:>8} {p50:>8} {p99:>8}\n",
            row.case.name,
            row.policies.name(),
            row.peer.name(),
            row.rate(),
            row.cpu(),
        ));
    }
    text
}

pub fn cost_table(costs: &[Cost]) -> String {
    let mut text = format!(
        "{:<10} {:>20} {:>12} {:>24} {:>26}\n",
        "proxy", "KiB, idle connection", "with TLS", "KiB, connection at 1 GiB", "user instructions, GET 300"
    );
    for cost in costs {
        let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
        let instructions = cost.instructions.map_or("-".to_owned(), |count| format!("{count:.0}"));
        text.push_str(&format!(
            "{:<10} {:>20.1} {:>12} {:>24.1} {instructions:>26}\n",
            cost.peer.name(),
            cost.idle / 1024.0,
            shown(cost.idle_tls.map(|bytes| bytes / 1024.0)),
            cost.busy / 1024.0,
        ));
    }
    text
}

const HEADING: &str = "## The gateway beside other proxies\n";

/// Puts what was measured into bench/RESULTS.md: in place of the section, or at the end.
pub fn recorded(document: &str, measured: &str) -> String {
    let section = format!(
        "{HEADING}\n\
         `scripts/bench gateway --record` writes this section and the chart. Each proxy has one core; the origins, two of \
         nginx, and\nthe clients have the others. `×nginx` is the work for processor time against nginx with the same \
         policies, `×bare` against\nnginx without any: above 1 the proxy does more. p50 and p99 are at half of nginx's \
         highest rate; a dash: the proxy\nis slower than that.\n\n\
         ![Requests for the same processor time, nginx = 1](gateway.svg)\n\n```\n{}\n```\n",
        measured.trim_end()
    );
    match document.split_once(HEADING) {
        Some((before, old)) => {
            let after = old.find("\n## ").map_or("", |at| &old[at..]);
            format!("{before}{section}{after}")
        }
        None => format!("{}\n\n{section}", document.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxies::case::CASES;

    fn row(peer: Peer, cpu: &[f64], latencies: Vec<Latency>) -> Row {
        let runs = cpu.iter().map(|cpu| Run { rate: 1e6 / cpu, cpu: *cpu }).collect();
        Row { policies: Policies::Bare, case: CASES[0], peer, runs, latencies }
    }

    #[test]
    fn a_ratio_is_that_of_the_rounds_so_a_slow_round_of_both_changes_nothing() {
        let nginx = row(Peer::Nginx, &[10.0, 20.0, 10.0], Vec::new());
        let gateway = row(Peer::Gateway, &[20.0, 40.0, 20.0], Vec::new());
        assert_eq!(gateway.work_against(&nginx), 0.5);
    }

    #[test]
    fn a_proxy_that_is_slower_than_the_rate_has_no_latency() {
        let at = |achieved| vec![Latency { p50: 1.0, p99: 2.0, achieved }];
        assert_eq!(row(Peer::Node, &[1.0], at(0.5)).latency(), None);
        assert_eq!(row(Peer::Node, &[1.0], at(1.0)).latency(), Some((1.0, 2.0)));
    }

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let first = recorded("# Results\n\n## One\n\ntext\n", "old");
        assert!(first.starts_with("# Results\n\n## One\n\ntext\n\n## The gateway"), "{first}");
        let second = recorded(&format!("{first}\n## Two\n"), "new");
        assert!(second.contains("```\nnew\n```\n\n## Two\n") && !second.contains("old"), "{second}");
        assert!(second.contains("## One"), "{second}");
    }
}
