//! Measures the gateway beside other proxies. `scripts/bench gateway` builds everything and runs it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::proxies::case::{CASES, Case, Policies};
use bench::proxies::lab::{Collector, Lab, PEERS, Peer, Programs, Running, machine, output, serve};
use bench::proxies::results::{Cost, Row, cost_table, median, recorded, table};
use bench::proxies::{chart, client, instructions, memory, wrk};
use shared::config::{ConfigError, Vars};

struct Config {
    programs: Programs,
    rounds: usize,
    seconds: u64,
    /// The keys of the cases to run; all if empty.
    only: Vec<String>,
    policies: Vec<Policies>,
    peers: Vec<Peer>,
    /// Where the tables and the chart are written, too.
    record: Option<PathBuf>,
    /// Count the gateway's instructions, compare them with this file, and do nothing else.
    expected: Option<PathBuf>,
    /// The profile that the gateway was built with.
    profile: String,
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let gateway: Option<PathBuf> = vars.required("GATEWAY", "the gateway's program");
        let pingora = vars.optional("PINGORA", "the program of bench/peers/pingora");
        let rounds = vars.or("ROUNDS", "5", "how often each proxy is measured in each case");
        let seconds = vars.or("SECONDS", "3", "how long each time");
        let only: String = vars.or("ONLY", "", "keys of cases, with commas; all if empty");
        let policies: String = vars.or("POLICIES", "", "keys of policies, with commas; all if empty");
        let peers: String = vars.or("PEERS", "", "names of proxies, with commas; all if empty");
        let record = vars.optional("RECORD", "folder for the tables and the chart");
        let expected = vars.optional("EXPECTED", "file with instructions for a request, by profile");
        let profile = vars.or("MEASURED", "dist", "the profile of the gateway");
        let is_listed = |keys: &str, key| keys.is_empty() || keys.split(',').any(|one| one == key);
        let list = |text: &str| text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let peers = match peers.as_str() {
            "" => PEERS.to_vec(),
            names => names.split(',').filter_map(Peer::named).collect(),
        };
        vars.finish(gateway.map(|gateway| Self {
            programs: Programs { gateway, pingora },
            rounds,
            seconds,
            only: list(&only),
            policies: Policies::ALL.into_iter().filter(|one| is_listed(&policies, one.key())).collect(),
            peers,
            record,
            expected,
            profile,
        }))
    }
}

/// The instructions of a request may differ so much from the number in the repository.
const TOLERANCE: f64 = 0.03;

fn main() -> ExitCode {
    let config = shared::config::load(Config::from_vars);
    bench::exit(match &config.expected {
        Some(file) => guard(file, &config.profile, config.programs),
        None => compare(config),
    })
}

/// The part of the traces that is sampled.
const SAMPLED: [f64; 3] = [0.0, 0.01, 1.0];

/// Counts the gateway's instructions for a request, without and with tracing, and compares them with the file.
fn guard(file: &PathBuf, profile: &str, programs: Programs) -> Result<bool, String> {
    let text = std::fs::read_to_string(file).map_err(|why| format!("{}: {why}", file.display()))?;
    let lab = Lab::open(programs)?;
    instructions::start_origins(&lab)?;
    let port = serve(0)?;
    let (mut without, mut is_expected) = (None, true);
    for ratio in SAMPLED {
        let collector = (ratio > 0.0).then_some(Collector { port, ratio });
        let count = instructions::of_a_request(&lab, Peer::Gateway, collector)?;
        let count = count.ok_or("The gateway is not there.")?;
        let more = 100.0 * (count / *without.get_or_insert(count) - 1.0);
        print!("{count:.0} user instructions with {} % of the traces sampled ({more:+.1} %)", 100.0 * ratio);
        let line = format!("{profile} {ratio} ");
        match text.lines().find_map(|known| known.strip_prefix(&line)?.trim().parse::<f64>().ok()) {
            None => println!(),
            Some(expected) => {
                let change = count / expected - 1.0;
                println!("; {expected:.0} in {}: {:+.1} %", file.display(), 100.0 * change);
                is_expected &= change.abs() <= TOLERANCE;
            }
        }
    }
    if !is_expected {
        println!("More than ±{:.0} %. If it is meant, write the new number there.", 100.0 * TOLERANCE);
    }
    Ok(is_expected)
}

fn compare(config: Config) -> Result<bool, String> {
    let Config { programs, rounds, seconds, only, policies, peers, record, profile, .. } = config;
    let versions = [
        format!("{}, {}", date(), machine()),
        format!("gateway {}, profile {profile}", output("git", &["describe", "--always", "--dirty"])),
        output("nginx", &["-v"]),
        output("haproxy", &["-v"]),
        if programs.pingora.is_some() {
            "Pingora 0.9".to_owned()
        } else {
            "Pingora was not built".to_owned()
        },
        format!("Node {}", output("node", &["--version"])),
        format!("{rounds} rounds of {seconds} s, interleaved; medians; one core for the proxy"),
    ]
    .join("\n");
    println!("{versions}\n");

    let mut lab = Lab::open(programs)?;
    // These measurements come first, because they start origins of their own.
    let mut costs = Vec::new();
    instructions::start_origins(&lab)?;
    for peer in peers.iter().filter(|peer| **peer != Peer::Node) {
        if let Some(count) = instructions::of_a_request(&lab, *peer, None)? {
            costs.push((*peer, count));
        }
    }
    lab.move_origins();
    lab.start_origins()?;
    let collector = serve(0)?;
    let mut rows = Vec::new();
    for policies in policies {
        let mut proxies: Vec<(Peer, Running)> = Vec::new();
        for peer in peers.iter().filter(|peer| policies == Policies::Bare || peer.has_policies()) {
            let collector =
                (policies == Policies::Full).then_some(Collector { port: collector, ratio: 0.01 });
            match lab.start(*peer, policies, &[], collector) {
                Ok(Some(running)) => proxies.push((*peer, running)),
                Ok(None) => eprintln!("{} is not here, and not measured.", peer.name()),
                Err(why) if why.contains("unknown field `tls`") => {
                    eprintln!("TLS is not measured: this gateway has no [tls].");
                    proxies.clear();
                    break;
                }
                Err(why) => return Err(why),
            }
        }
        let token = (policies == Policies::Full).then_some(lab.token.as_str());
        let cases = CASES.iter().filter(|case| only.is_empty() || only.iter().any(|key| key == case.key));
        for case in cases.filter(|_| !proxies.is_empty()) {
            rows.extend(measure(&proxies, case, policies, rounds, seconds, token)?);
            lab.empty_logs().map_err(|why| why.to_string())?;
        }
    }
    let has_tls = rows.iter().any(|row| row.policies == Policies::Tls);
    let costs = costs_of(&lab, &peers, &costs, has_tls)?;
    let tables = format!("{}\n{}", table(&rows), cost_table(&costs));
    println!("{tables}");
    if let Some(folder) = record {
        let failed = |why: std::io::Error| format!("{}: {why}", folder.display());
        let file = folder.join("RESULTS.md");
        let document = std::fs::read_to_string(&file).map_err(failed)?;
        let document = recorded(&document, &format!("{versions}\n\n{tables}"));
        std::fs::write(file, document).map_err(failed)?;
        let caption = format!("{}, {}", machine(), date());
        std::fs::write(folder.join("gateway.svg"), chart::svg(&rows, &caption)).map_err(failed)?;
    }
    Ok(true)
}

fn date() -> String {
    output("date", &["+%F"])
}

/// Measures one case in rounds. In each round, every proxy has its turn.
fn measure(
    proxies: &[(Peer, Running)],
    case: &Case,
    policies: Policies,
    rounds: usize,
    seconds: u64,
    token: Option<&str>,
) -> Result<Vec<Row>, String> {
    let row = |(peer, _): &(Peer, Running)| Row {
        policies,
        case: *case,
        peer: *peer,
        runs: Vec::new(),
        latencies: Vec::new(),
    };
    let mut rows: Vec<Row> = proxies.iter().map(row).collect();
    for (_, proxy) in proxies {
        wrk::run(proxy, case, 1, token)?;
    }
    for _ in 0..rounds {
        for (row, (_, proxy)) in rows.iter_mut().zip(proxies) {
            row.runs.push(wrk::run(proxy, case, seconds, token)?);
        }
    }
    let nginx = rows.iter().find(|row| row.peer == Peer::Nginx);
    let highest = nginx.map_or_else(|| median(rows.iter().map(Row::rate)), Row::rate);
    let request = case.request(token);
    for _ in 0..rounds {
        for (row, (_, proxy)) in rows.iter_mut().zip(proxies) {
            let time = Duration::from_secs(seconds);
            row.latencies.push(client::at_rate(
                &proxy.address,
                &request,
                case.connections,
                highest / 2.0,
                time,
            )?);
        }
    }
    eprintln!("{} ({}) is measured", case.name, policies.name());
    Ok(rows)
}

/// The memory of each proxy, each time in a new process.
fn costs_of(
    lab: &Lab,
    peers: &[Peer],
    instructions: &[(Peer, f64)],
    has_tls: bool,
) -> Result<Vec<Cost>, String> {
    let mut costs = Vec::new();
    for peer in peers {
        let start = |policies| lab.start(*peer, policies, &[], None);
        let Some(proxy) = start(Policies::Bare)? else { continue };
        let idle = memory::of_an_idle_connection(&proxy)?;
        drop(proxy);
        let Some(proxy) = start(Policies::Bare)? else { continue };
        let busy = memory::of_large_bodies(&proxy)?;
        drop(proxy);
        let idle_tls = match has_tls && peer.has_policies() {
            true => start(Policies::Tls)?.map(|proxy| memory::of_an_idle_connection(&proxy)).transpose()?,
            false => None,
        };
        let counted = instructions.iter().find(|(other, _)| other == peer).map(|(_, count)| *count);
        costs.push(Cost { peer: *peer, idle, idle_tls, busy, instructions: counted });
    }
    Ok(costs)
}
