//! The calls between programs, with their rates, errors and durations: computed from spans as they arrive.
//!
//! A span of a served request or a handled message is one use of an edge, from the program that has its parent (or
//! its linked sender) to its own. Spans arrive in any order and from several programs, so a use waits some seconds for
//! the span that tells its caller. The caller passes the time.

use std::collections::{HashMap, VecDeque};

use super::{Histogram, Kind, Span};

/// Steps that are kept: 15 minutes.
pub const STEPS: usize = 90;
/// Seconds.
const STEP: i64 = 10;
/// Steps that rates and percentiles cover: the last minute.
const RECENT: usize = 6;
/// How long a use waits for its caller's span.
const WAIT_US: i64 = 10_000_000;
/// Spans whose program is remembered, and uses that wait.
const MOST: usize = 50_000;
/// Edges. The names in spans are what their senders say, and each edge has the counts of 15 minutes.
const MOST_EDGES: usize = 500;

/// The program that receives requests from outside.
const ENTRANCE: &str = "gateway";

#[derive(Debug, Default)]
pub struct Traffic {
    /// The program of each recent span, and when the span ended.
    owners: HashMap<u64, (String, i64)>,
    owned: VecDeque<u64>,
    /// Uses by the span that tells their caller.
    waiting: HashMap<u64, Vec<Use>>,
    queue: VecDeque<(i64, u64)>,
    edges: HashMap<Ends, Series>,
    /// The step in which old edges were deleted the last time.
    pruned: i64,
    /// Uses of further edges since then.
    refused: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Ends {
    /// `None`: from outside.
    from: Option<String>,
    to: String,
    kind: EdgeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EdgeKind {
    Http,
    Message,
    /// A program's use of its database; both ends have the program's name.
    Database,
}

#[derive(Debug)]
struct Use {
    to: String,
    kind: EdgeKind,
    start_us: i64,
    duration_us: i64,
    is_error: bool,
}

/// Counts by step; the last one is current.
#[derive(Debug, Default)]
struct Series {
    steps: VecDeque<Step>,
    /// The number of the last step since 1970.
    last: i64,
    /// The last step with a use.
    used: i64,
}

#[derive(Debug, Clone, Default)]
struct Step {
    uses: u32,
    errors: u32,
    durations: Histogram,
    /// Times from a message's sending to its handling.
    lags: Histogram,
}

/// The figures of an edge.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// `None`: from outside.
    pub from: Option<String>,
    pub to: String,
    pub kind: EdgeKind,
    /// Uses per second in the last minute.
    pub rate: f64,
    pub errors: f64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// The 99th percentile of the time from a message's sending to its handling.
    pub lag_ms: Option<f64>,
    /// Uses per second in each step, oldest first.
    pub rates: Vec<f64>,
    pub error_rates: Vec<f64>,
}

impl Traffic {
    /// Takes note of a span that has arrived at `now_us`.
    pub fn observe(&mut self, span: &Span, now_us: i64) {
        self.give_up(now_us);
        self.prune(now_us);
        let Some(id) = number(&span.id) else { return };
        self.own(id, span);
        for waiting in self.waiting.remove(&id).unwrap_or_default() {
            let sent_us = span.end_us();
            self.count(Some(span.service.clone()), waiting, Some(sent_us));
        }
        let kind = match span.kind {
            Kind::Server => EdgeKind::Http,
            Kind::Consumer => EdgeKind::Message,
            Kind::Client if is_of_database(span) => EdgeKind::Database,
            Kind::Client | Kind::Producer | Kind::Internal => return,
        };
        let one = Use {
            to: span.service.clone(),
            kind,
            start_us: span.start_us,
            duration_us: span.duration_us,
            is_error: span.is_error,
        };
        if kind == EdgeKind::Database {
            return self.count(Some(span.service.clone()), one, None);
        }
        let linked = span.links.first().map(|link| link.span_id.as_str());
        // A consumer's link names its sender, while its parent may be a span of its own program.
        let caller = if kind == EdgeKind::Message {
            linked.or(span.parent_id.as_deref())
        } else {
            span.parent_id.as_deref()
        };
        match caller.and_then(number) {
            None => self.count(None, one, None),
            Some(caller) => match self.owners.get(&caller).cloned() {
                Some((from, sent_us)) => self.count(Some(from), one, Some(sent_us)),
                None if self.queue.len() < MOST => {
                    self.queue.push_back((now_us + WAIT_US, caller));
                    self.waiting.entry(caller).or_default().push(one);
                }
                None => {}
            },
        }
    }

    fn own(&mut self, id: u64, span: &Span) {
        if self.owners.insert(id, (span.service.clone(), span.end_us())).is_none() {
            self.owned.push_back(id);
        }
        while self.owned.len() > MOST {
            if let Some(old) = self.owned.pop_front() {
                self.owners.remove(&old);
            }
        }
    }

    /// Nobody has sent the caller's span in time: it came from outside.
    fn give_up(&mut self, now_us: i64) {
        while let Some((_, caller)) = self.queue.front().copied().filter(|(until, _)| *until <= now_us) {
            self.queue.pop_front();
            for one in self.waiting.remove(&caller).unwrap_or_default() {
                self.count(None, one, None);
            }
        }
    }

    fn count(&mut self, from: Option<String>, one: Use, sent_us: Option<i64>) {
        // A direct call of an operator's tool is no part of the picture.
        if from.is_none() && (one.kind != EdgeKind::Http || one.to != ENTRANCE) {
            return;
        }
        let lag = sent_us.filter(|_| one.kind == EdgeKind::Message).map(|sent| (one.start_us - sent).max(0));
        let ends = Ends { from, to: one.to, kind: one.kind };
        let step = (one.start_us + one.duration_us) / 1_000_000 / STEP;
        if self.edges.len() >= MOST_EDGES && !self.edges.contains_key(&ends) {
            self.refused += 1;
            return;
        }
        let series = self.edges.entry(ends).or_default();
        series.used = series.used.max(step);
        let Some(step) = series.at(step) else { return };
        step.uses += 1;
        step.errors += u32::from(one.is_error);
        step.durations.add(one.duration_us);
        lag.iter().for_each(|lag| step.lags.add(*lag));
    }

    /// Deletes old edges, once in each step: perhaps nobody looks at the map.
    fn prune(&mut self, now_us: i64) {
        let now = now_us / 1_000_000 / STEP;
        if self.pruned == now {
            return;
        }
        self.pruned = now;
        self.edges.retain(|_, series| now - series.used < STEPS as i64);
        let refused = std::mem::take(&mut self.refused);
        if refused > 0 {
            log::warn!(count = refused; "spans are not on the map, because it has too many edges");
        }
    }

    /// Every edge of the last 15 minutes.
    pub fn edges(&mut self, now_us: i64) -> Vec<Edge> {
        self.give_up(now_us);
        self.prune(now_us);
        let now = now_us / 1_000_000 / STEP;
        let mut edges: Vec<_> = self
            .edges
            .iter_mut()
            .map(|(ends, series)| {
                series.at(now);
                series.described(ends, now_us)
            })
            .collect();
        edges.sort_by(|one, other| (&one.from, &one.to, one.kind).cmp(&(&other.from, &other.to, other.kind)));
        edges
    }
}

impl Series {
    /// The counts of `step`; `None` if it is too old.
    fn at(&mut self, step: i64) -> Option<&mut Step> {
        if self.steps.is_empty() {
            (self.last, self.steps) = (step, VecDeque::from([Step::default()]));
        }
        let missing = (step - self.last).clamp(0, STEPS as i64);
        for _ in 0..missing {
            self.steps.push_back(Step::default());
        }
        self.last = self.last.max(step);
        while self.steps.len() > STEPS {
            self.steps.pop_front();
        }
        let back = usize::try_from(self.last - step).ok()?;
        while self.steps.len() <= back && self.steps.len() < STEPS {
            self.steps.push_front(Step::default());
        }
        let place = self.steps.len().checked_sub(back + 1)?;
        self.steps.get_mut(place)
    }

    fn described(&self, ends: &Ends, now_us: i64) -> Edge {
        let per_second = |count: u32| f64::from(count) / STEP as f64;
        let history = |count: fn(&Step) -> u32| {
            let missing = std::iter::repeat_n(0.0, STEPS - self.steps.len());
            missing.chain(self.steps.iter().map(|step| per_second(count(step)))).collect()
        };
        let recent = || self.steps.iter().rev().take(RECENT);
        // The current step has only begun.
        let seconds = (STEP * (RECENT as i64 - 1)) as f64 + (now_us as f64 / 1e6) % STEP as f64;
        let (mut durations, mut lags) = (Histogram::default(), Histogram::default());
        for step in recent() {
            durations.merge(&step.durations);
            lags.merge(&step.lags);
        }
        Edge {
            from: ends.from.clone(),
            to: ends.to.clone(),
            kind: ends.kind,
            rate: f64::from(recent().map(|step| step.uses).sum::<u32>()) / seconds,
            errors: f64::from(recent().map(|step| step.errors).sum::<u32>()) / seconds,
            p50_ms: durations.percentile(0.5),
            p99_ms: durations.percentile(0.99),
            lag_ms: lags.percentile(0.99),
            rates: history(|step| step.uses),
            error_rates: history(|step| step.errors),
        }
    }
}

fn is_of_database(span: &Span) -> bool {
    span.attributes.keys().any(|key| key == "db.system" || key == "db.system.name")
}

fn number(id: &str) -> Option<u64> {
    u64::from_str_radix(id, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Attributes, Link};

    const NOW: i64 = 1_800_000_000_000_000;

    fn span(id: u64, parent: Option<u64>, service: &str, kind: Kind) -> Span {
        Span {
            trace_id: "1".repeat(32),
            id: format!("{id:016x}"),
            parent_id: parent.map(|parent| format!("{parent:016x}")),
            links: Vec::new(),
            service: service.to_owned(),
            instance: None,
            name: "GET /api/things".to_owned(),
            kind,
            start_us: NOW - 5_000,
            duration_us: 5_000,
            is_error: false,
            message: None,
            attributes: Attributes::new(),
            events: Vec::new(),
        }
    }

    fn ends(traffic: &mut Traffic, now: i64) -> Vec<(Option<String>, String, EdgeKind, u32)> {
        let edges = traffic.edges(now).into_iter();
        edges
            .map(|edge| {
                (edge.from, edge.to, edge.kind, (edge.rates.iter().sum::<f64>() * 10.0).round() as u32)
            })
            .collect()
    }

    #[test]
    fn an_edge_leads_from_the_program_of_the_parent_in_whatever_order_spans_arrive() {
        let mut spans = [
            span(1, None, "gateway", Kind::Server),
            span(2, Some(1), "gateway", Kind::Client),
            span(3, Some(2), "a-service", Kind::Server),
        ];
        let expected = [
            (None, "gateway".to_owned(), EdgeKind::Http, 1),
            (Some("gateway".to_owned()), "a-service".to_owned(), EdgeKind::Http, 1),
        ];
        for _ in 0..2 {
            let mut traffic = Traffic::default();
            spans.iter().for_each(|span| traffic.observe(span, NOW));
            assert_eq!(ends(&mut traffic, NOW), expected);
            spans.reverse();
        }
    }

    #[test]
    fn a_message_comes_from_the_program_of_its_link_and_tells_its_lag() {
        let mut traffic = Traffic::default();
        let mut consumer = span(2, None, "b-service", Kind::Consumer);
        consumer.links.push(Link { trace_id: "2".repeat(32), span_id: format!("{:016x}", 1) });
        consumer.start_us = NOW + 40_000;
        traffic.observe(&consumer, NOW);
        traffic.observe(&span(1, None, "a-service", Kind::Producer), NOW);
        let edges = traffic.edges(NOW + 50_000);
        assert_eq!((edges[0].from.as_deref(), edges[0].kind), (Some("a-service"), EdgeKind::Message));
        let lag = edges[0].lag_ms.unwrap();
        assert!((36.0..44.0).contains(&lag), "{lag}");
    }

    #[test]
    fn a_caller_that_sends_no_spans_is_outside() {
        let mut traffic = Traffic::default();
        traffic.observe(&span(1, Some(9), "gateway", Kind::Server), NOW);
        traffic.observe(&span(2, Some(9), "a-service", Kind::Server), NOW);
        assert!(ends(&mut traffic, NOW).is_empty());
        let later = NOW + WAIT_US;
        assert_eq!(ends(&mut traffic, later), [(None, "gateway".to_owned(), EdgeKind::Http, 1)]);
    }

    #[test]
    fn a_rate_is_of_the_last_minute_and_an_edge_without_traffic_goes_after_fifteen() {
        let mut traffic = Traffic::default();
        (0..600).for_each(|id| traffic.observe(&span(id + 1, None, "gateway", Kind::Server), NOW));
        let rate = traffic.edges(NOW)[0].rate;
        assert!((10.0..=12.0).contains(&rate), "{rate}");
        let minutes = |count: i64| NOW + count * 60_000_000;
        assert_eq!(traffic.edges(minutes(2))[0].rate, 0.0);
        assert_eq!(traffic.edges(minutes(2))[0].rates.len(), STEPS);
        assert!(traffic.edges(minutes(16)).is_empty());
    }

    fn of_database(id: u64, service: &str, end_us: i64) -> Span {
        let mut span = span(id, None, service, Kind::Client);
        span.start_us = end_us - span.duration_us;
        span.attributes.insert("db.system.name".to_owned(), "sqlite".into());
        span
    }

    #[test]
    fn a_sender_with_ever_new_names_gets_a_limited_number_of_edges_and_they_go_without_a_reader() {
        let mut traffic = Traffic::default();
        let most = MOST_EDGES as u64;
        for id in 1..=3 * most {
            traffic.observe(&of_database(id, &format!("service-{id}"), NOW), NOW);
        }
        assert_eq!(traffic.edges.len(), MOST_EDGES);
        traffic.observe(&of_database(1, "service-1", NOW), NOW);
        assert_eq!(
            traffic.edges(NOW).iter().find(|edge| edge.to == "service-1").unwrap().rates[STEPS - 1],
            0.2
        );
        let later = NOW + 16 * 60_000_000;
        traffic.observe(&of_database(1, "another", later), later);
        assert_eq!(traffic.edges.len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut traffic = Traffic::default();
        let most = MOST as u64;
        for id in 1..=3 * most {
            traffic.observe(&span(id, Some(u64::MAX - id), "a-service", Kind::Server), NOW);
        }
        assert!(traffic.owners.len() <= MOST && traffic.owned.len() <= MOST);
        assert!(traffic.queue.len() <= MOST && traffic.waiting.len() <= MOST);
    }
}
