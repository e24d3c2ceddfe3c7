//! Versions of a service behind one route: which share of the requests each gets, and a canary that is rolled back when
//! it has too many errors.
//!
//! The share of a canary grows by steps, or as an admin says. Above its bound of errors it gets nothing more:
//!
//! ```text
//! Step 1 % ──time, and enough answers──► Step 10 % ──► … ──► Step 100 %
//!    └──too many errors, at any step or share──► RolledBack ──an admin sets a share──► Set
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::balancer::hash;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// `[routes.versions]`: by the `version` in the metadata of the instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Versions and their parts of the requests: `{ "1.0" = 95, "1.1" = 5 }`. All others get nothing.
    pub weights: BTreeMap<String, u32>,
    /// A request header: requests with the same value go to the same version. Without it, versions take turns.
    #[serde(default)]
    pub sticky_header: Option<String>,
    /// A new version, which gets its share before the others.
    #[serde(default)]
    pub canary: Option<CanaryEntry>,
    /// A version that gets copies of requests. Its answers are dropped.
    #[serde(default)]
    pub mirror: Option<MirrorEntry>,
}

/// `[routes.versions.mirror]`. Copies of requests that change something are sent, too: the version needs data of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorEntry {
    pub version: String,
    /// Percent of the requests that are copied.
    #[serde(default = "default_percent")]
    #[schemars(range(max = 100))]
    pub percent: u32,
    /// Copies that are on their way at a time, in this gateway. There are none beyond it.
    #[serde(default = "default_copies")]
    #[schemars(range(min = 1))]
    pub max_in_flight: usize,
}

fn default_percent() -> u32 {
    100
}

fn default_copies() -> usize {
    32
}

/// `[routes.versions.canary]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryEntry {
    pub version: String,
    /// Percent of the requests, one step after the other.
    #[serde(default = "default_steps")]
    pub steps: Vec<u32>,
    /// Seconds of a step. The next one also needs `min_requests` answers since this one began.
    #[serde(default = "default_step")]
    #[schemars(range(min = 1))]
    pub step_s: u64,
    /// It is rolled back when more than so many percent of its answers, and at least three, are errors.
    #[serde(default = "default_errors")]
    #[schemars(range(max = 100))]
    pub max_error_percent: u32,
    /// Seconds in which errors are counted.
    #[serde(default = "default_window")]
    #[schemars(range(min = 1))]
    pub window_s: u64,
    /// Fewer answers prove nothing. With fewer within the window, the last so many count, from five errors on.
    #[serde(default = "default_requests")]
    #[schemars(range(min = 1))]
    pub min_requests: u64,
}

fn default_steps() -> Vec<u32> {
    vec![1, 10, 50, 100]
}

fn default_step() -> u64 {
    60
}

fn default_errors() -> u32 {
    2
}

fn default_window() -> u64 {
    10
}

fn default_requests() -> u64 {
    50
}

impl Versions {
    /// The error is the key that cannot be used, and why.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        if !self.weights.values().any(|weight| *weight > 0) {
            return Err(("weights", "a version must have a weight above 0"));
        }
        if let Some(mirror) = &self.mirror {
            let others = self.canary.as_ref().map(|canary| &canary.version);
            if self.weights.contains_key(&mirror.version) || others == Some(&mirror.version) {
                return Err(("mirror", "its version must get copies only"));
            }
            if mirror.percent > 100 || !(1..=10_000).contains(&mirror.max_in_flight) {
                return Err(("mirror", "percent must be 0 to 100, max_in_flight 1 to 10000"));
            }
        }
        let Some(canary) = &self.canary else { return Ok(()) };
        let is_percent = |steps: &[u32]| !steps.is_empty() && steps.iter().all(|step| *step <= 100);
        match canary {
            _ if self.weights.contains_key(&canary.version) => {
                Err(("canary", "its version must not be in weights"))
            }
            _ if !is_percent(&canary.steps) => Err(("canary", "steps must be percent, at least one")),
            _ if canary.max_error_percent > 100 => Err(("canary", "max_error_percent must be 0 to 100")),
            _ if canary.step_s == 0 || canary.window_s == 0 || canary.min_requests == 0 => {
                Err(("canary", "step_s, window_s and min_requests must be above 0"))
            }
            _ => Ok(()),
        }
    }
}

/// The versions of one route, with their state.
#[derive(Debug)]
pub struct Split {
    pub entry: Versions,
    turn: AtomicU64,
    canary: Option<Mutex<Canary>>,
    copies: Arc<Semaphore>,
    copied: AtomicU64,
}

/// 2⁶⁴ divided by the golden ratio. Its multiples, modulo 2⁶⁴, are a low-discrepancy sequence: every share is nearly
/// exact, and of a hundred requests in a row, a share of 1 % gets none to two.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

impl Split {
    pub fn new(entry: Versions, now: Instant) -> Self {
        let canary = entry.canary.clone().map(|canary| Mutex::new(Canary::new(canary, now)));
        let copies = entry.mirror.as_ref().map_or(0, |mirror| mirror.max_in_flight);
        let copies = Arc::new(Semaphore::new(copies));
        Self { entry, turn: AtomicU64::new(0), canary, copies, copied: AtomicU64::new(0) }
    }

    /// The version for the next request. `key` is the value of the sticky header.
    pub fn choose(&self, key: Option<&str>) -> &str {
        let point = key.map_or_else(|| self.turn.fetch_add(STRIDE, Ordering::Relaxed), hash);
        let point = point as f64 / 2_f64.powi(64);
        let share = self.canary().map_or(0.0, |canary| f64::from(canary.share()) / 100.0);
        if let Some(canary) = self.entry.canary.as_ref().filter(|_| point < share) {
            return &canary.version;
        }
        // What the canary leaves, as a part of all weights.
        let mut left = (point - share) / (1.0 - share) * self.total();
        let chosen = self.entry.weights.iter().find(|(_, weight)| {
            left -= f64::from(**weight);
            left < 0.0
        });
        chosen.or(self.entry.weights.last_key_value()).map_or("", |(version, _)| version)
    }

    /// The version that gets a copy of the next request, and the permission to send it.
    pub fn copy(&self) -> Option<(&str, OwnedSemaphorePermit)> {
        let mirror = self.entry.mirror.as_ref()?;
        let point = self.copied.fetch_add(STRIDE, Ordering::Relaxed) as f64 / 2_f64.powi(64);
        if point * 100.0 >= f64::from(mirror.percent) {
            return None;
        }
        Some((&mirror.version, self.copies.clone().try_acquire_owned().ok()?))
    }

    /// The outcome of a request to `version`.
    pub fn record(&self, version: &str, is_error: bool, now: Instant) -> Option<Change> {
        let mut canary = self.canary()?;
        if canary.entry.version != version {
            return None;
        }
        canary.record(is_error, now)
    }

    /// Gives the canary a share in percent, which its steps do not change. `false` without a canary.
    pub fn set(&self, percent: u32) -> bool {
        let Some(mut canary) = self.canary() else { return false };
        canary.state = State::Set(percent);
        canary.clear();
        true
    }

    /// The share of each version, from 0 to 1.
    pub fn shares(&self) -> BTreeMap<String, f64> {
        let canary = self.canary().map(|canary| (canary.entry.version.clone(), canary.share()));
        let left = 1.0 - canary.as_ref().map_or(0.0, |(_, percent)| f64::from(*percent) / 100.0);
        let of_weights = self.entry.weights.iter();
        let shares =
            of_weights.map(|(version, weight)| (version.clone(), f64::from(*weight) / self.total() * left));
        let canary = canary.map(|(version, percent)| (version, f64::from(percent) / 100.0));
        shares.chain(canary).collect()
    }

    /// The versions that get requests of clients now.
    pub fn serving(&self) -> Vec<&str> {
        let canary = self.canary().is_some_and(|canary| canary.share() > 0);
        let canary = self.entry.canary.as_ref().filter(|_| canary).map(|canary| canary.version.as_str());
        let weighted = self.entry.weights.iter().filter(|(_, weight)| **weight > 0);
        weighted.map(|(version, _)| version.as_str()).chain(canary).collect()
    }

    pub fn canary_version(&self) -> Option<&str> {
        self.entry.canary.as_ref().map(|canary| canary.version.as_str())
    }

    /// The canary's state.
    pub fn seen(&self) -> Option<State> {
        self.canary().map(|canary| canary.state)
    }

    fn total(&self) -> f64 {
        self.entry.weights.values().map(|weight| f64::from(*weight)).sum()
    }

    fn canary(&self) -> Option<MutexGuard<'_, Canary>> {
        self.canary.as_ref().map(|canary| canary.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What an outcome has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The canary has this share now, in percent.
    Step(u32),
    /// The canary gets no more requests.
    RolledBack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The number of the step, from 0, and its share in percent.
    Step {
        number: usize,
        percent: u32,
        since: Instant,
    },
    /// By an admin, in percent.
    Set(u32),
    RolledBack,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Step { .. } => "step",
            Self::Set(_) => "set",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// So many errors prove enough if there is no good answer, or if they are among the last `min_requests` answers.
const DEAD_AFTER: u64 = 5;
/// Fewer errors prove nothing, even if they are more than the bound.
const MIN_ERRORS: u64 = 3;
/// At most so many answers are remembered beyond the window.
const MAX_LAST: u64 = 10_000;

#[derive(Debug)]
struct Canary {
    entry: CanaryEntry,
    state: State,
    window: Window,
    /// Whether each of the last `min_requests` answers was an error. With little traffic, the window holds fewer.
    last: VecDeque<bool>,
    /// Since the step began.
    answers: u64,
}

impl Canary {
    fn new(entry: CanaryEntry, now: Instant) -> Self {
        let percent = entry.steps.first().copied().unwrap_or(0);
        let window =
            Window { length: Duration::from_secs(entry.window_s), slots: VecDeque::new(), begin: now };
        let state = State::Step { number: 0, percent, since: now };
        Self { entry, state, window, last: VecDeque::new(), answers: 0 }
    }

    fn share(&self) -> u32 {
        match self.state {
            State::Step { percent, .. } | State::Set(percent) => percent,
            State::RolledBack => 0,
        }
    }

    fn record(&mut self, is_error: bool, now: Instant) -> Option<Change> {
        if self.state == State::RolledBack {
            return None;
        }
        let (answers, errors) = self.window.record(is_error, now);
        let enough = self.entry.min_requests;
        self.answers += 1;
        self.last.push_back(is_error);
        if self.last.len() as u64 > enough.min(MAX_LAST) {
            self.last.pop_front();
        }
        let is_dead = answers == errors && errors >= DEAD_AFTER;
        let (of, wrong, least) = match answers < enough && !is_dead {
            true => {
                let errors = self.last.iter().filter(|is_error| **is_error).count();
                (self.last.len() as u64, errors as u64, DEAD_AFTER)
            }
            false => (answers, errors, MIN_ERRORS),
        };
        if of < enough.min(MAX_LAST) && !is_dead {
            return None;
        }
        if wrong * 100 > of * u64::from(self.entry.max_error_percent) {
            if wrong < least {
                return None;
            }
            self.state = State::RolledBack;
            self.clear();
            return Some(Change::RolledBack);
        }
        if self.answers < enough {
            return None;
        }
        let State::Step { number, since, .. } = self.state else { return None };
        let percent = *self.entry.steps.get(number + 1)?;
        if now.saturating_duration_since(since) < Duration::from_secs(self.entry.step_s) {
            return None;
        }
        self.state = State::Step { number: number + 1, percent, since: now };
        self.clear();
        Some(Change::Step(percent))
    }

    fn clear(&mut self) {
        self.window.clear();
        self.last.clear();
        self.answers = 0;
    }
}

/// Answers and errors of the last seconds.
#[derive(Debug)]
struct Window {
    length: Duration,
    /// Number of the slot, answers, errors. Ten slots are one window.
    slots: VecDeque<(u128, u64, u64)>,
    begin: Instant,
}

impl Window {
    /// Counts one answer, and returns the sums.
    fn record(&mut self, is_error: bool, now: Instant) -> (u64, u64) {
        let slot = now.saturating_duration_since(self.begin).as_nanos() * 10 / self.length.as_nanos().max(1);
        if self.slots.back().is_none_or(|(last, ..)| *last < slot) {
            self.slots.push_back((slot, 0, 0));
        }
        if let Some((_, answers, errors)) = self.slots.back_mut() {
            *answers += 1;
            *errors += u64::from(is_error);
        }
        while self.slots.front().is_some_and(|(first, ..)| first + 10 <= slot) {
            self.slots.pop_front();
        }
        self.slots.iter().fold((0, 0), |(answers, errors), slot| (answers + slot.1, errors + slot.2))
    }

    fn clear(&mut self) {
        self.slots.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, now: Instant) -> Split {
        let entry: Versions = toml::from_str(text).unwrap();
        assert_eq!(entry.validate(), Ok(()));
        Split::new(entry, now)
    }

    /// Percent of 10,000 requests that `version` gets.
    fn share(split: &Split, version: &str, key: impl Fn(u32) -> Option<String>) -> f64 {
        let hits = (0..10_000).filter(|request| split.choose(key(*request).as_deref()) == version);
        hits.count() as f64 / 100.0
    }

    #[test]
    fn each_version_gets_its_share_within_one_point_in_turn_and_by_a_header() {
        let now = Instant::now();
        for (weights, expected) in [
            ("v1 = 95, v2 = 5", [("v1", 95.0), ("v2", 5.0)]),
            ("v1 = 1, v2 = 1", [("v1", 50.0), ("v2", 50.0)]),
            ("v1 = 2, v2 = 1, v3 = 0", [("v2", 33.33), ("v3", 0.0)]),
        ] {
            let split = split(&format!("weights = {{ {weights} }}"), now);
            for (version, percent) in expected {
                let (turns, sticky) =
                    (share(&split, version, |_| None), share(&split, version, |n| Some(format!("ann-{n}"))));
                assert!((turns - percent).abs() < 0.1, "{weights}: {version} {turns}");
                assert!((sticky - percent).abs() < 1.0, "{weights}: {version} {sticky}");
            }
        }
    }

    #[test]
    fn a_person_stays_with_the_canary_while_its_share_grows() {
        let split = split("weights = { v1 = 1 }\n[canary]\nversion = \"v2\"", Instant::now());
        let mut before = Vec::new();
        for percent in [1, 10, 50, 100] {
            assert!(split.set(percent));
            let person = |n: &u32| split.choose(Some(&format!("ann-{n}"))) == "v2";
            let now: Vec<u32> = (0..10_000).filter(person).collect();
            assert!((now.len() as f64 / 100.0 - f64::from(percent)).abs() <= 1.0, "{percent}: {}", now.len());
            assert!(before.iter().all(|n| now.contains(n)), "{percent}");
            before = now;
        }
    }

    #[test]
    fn a_canary_without_errors_takes_every_step_and_only_with_enough_answers() {
        let begin = Instant::now();
        let split = split("weights = { v1 = 1 }\n[canary]\nversion = \"v2\"", begin);
        assert!((share(&split, "v2", |_| None) - 1.0).abs() < 0.1);
        // With an answer every ten seconds, the first step lasts until there are fifty.
        for n in 1..50 {
            assert_eq!(split.record("v2", false, begin + Duration::from_secs(10 * n)), None);
        }
        let (mut now, mut steps) = (begin + Duration::from_secs(500), Vec::new());
        assert_eq!(split.record("v2", false, now), Some(Change::Step(10)));
        for _ in 0..200 * 20 {
            now += Duration::from_millis(50);
            if let Some(Change::Step(percent)) = split.record("v2", false, now) {
                assert!((share(&split, "v2", |_| None) - f64::from(percent)).abs() < 0.1);
                steps.push((percent, now.duration_since(begin).as_secs()));
            }
        }
        let percents: Vec<_> = steps.iter().map(|step| step.0).collect();
        assert_eq!(percents, [50, 100]);
        assert!(steps.windows(2).all(|two| two[1].1 - two[0].1 >= 60), "{steps:?}");
    }

    #[test]
    fn a_canary_with_5_percent_of_errors_is_rolled_back_within_10_seconds_at_every_step() {
        for percent in [1, 10, 50, 100] {
            let begin = Instant::now();
            let split = split("weights = { v1 = 1 }\n[canary]\nversion = \"v2\"", begin);
            assert!(split.set(percent));
            // 1,000 requests a second; one in twenty of the canary fails.
            let (mut after, mut answers) = (None, 0);
            for request in 0..10_000_u64 {
                let now = begin + Duration::from_millis(request);
                let version = split.choose(None).to_owned();
                answers += u32::from(version == "v2");
                let is_error = version == "v2" && answers % 20 == 0;
                if split.record(&version, is_error, now) == Some(Change::RolledBack) {
                    after = Some(now.duration_since(begin));
                }
            }
            assert!(after.is_some_and(|after| after < Duration::from_secs(10)), "{percent}: {after:?}");
            assert_eq!(share(&split, "v2", |_| None), 0.0);
            assert_eq!(split.seen(), Some(State::RolledBack));
        }
    }

    #[test]
    fn errors_of_the_stable_version_and_old_errors_do_not_count() {
        let begin = Instant::now();
        let split = split("weights = { v1 = 1 }\n[canary]\nversion = \"v2\"", begin);
        for n in 0..1000 {
            assert_eq!(split.record("v1", true, begin + Duration::from_millis(n)), None);
        }
        for n in 0..4 {
            assert_eq!(split.record("v2", true, begin + Duration::from_millis(n)), None, "too few");
        }
        for n in 0..1000 {
            assert_eq!(
                split.record("v2", false, begin + Duration::from_secs(11) + Duration::from_millis(n)),
                None
            );
        }
        assert_eq!(split.seen().map(State::as_str), Some("step"));
    }

    #[test]
    fn a_canary_without_a_good_answer_is_rolled_back_after_five() {
        let begin = Instant::now();
        let split = split("weights = { v1 = 1 }\n[canary]\nversion = \"v2\"", begin);
        let changes: Vec<_> = (0..6).map(|_| split.record("v2", true, begin)).collect();
        assert_eq!(changes, [None, None, None, None, Some(Change::RolledBack), None]);
    }

    #[test]
    fn a_canary_with_little_traffic_is_rolled_back_too_and_two_errors_prove_nothing() {
        let begin = Instant::now();
        let outcomes = |is_error: fn(u64) -> bool| {
            let split = split("weights = { v1 = 1 }\n[canary]\nversion = \"v2\"", begin);
            for n in 0..100 {
                split.record("v2", is_error(n), begin + Duration::from_secs(3 * n));
            }
            split.seen() == Some(State::RolledBack)
        };
        assert!(outcomes(|n| n % 2 == 0));
        assert!(!outcomes(|n| n % 50 < 2 && n < 50));
    }

    #[test]
    fn a_canary_above_its_bound_takes_no_step_although_its_errors_are_too_few_to_roll_it_back() {
        let begin = Instant::now();
        let split = split("weights = { v1 = 1 }\n[canary]\nversion = \"v2\"", begin);
        let record = |n: u64| split.record("v2", n < 2, begin + Duration::from_secs(3 * n));
        assert!((0..50).all(|n| record(n).is_none()));
        assert_eq!(record(50), Some(Change::Step(10)), "one error in the last 50 is within the bound");
    }

    #[test]
    fn only_versions_with_a_share_serve_clients() {
        let split = split(
            "weights = { v1 = 1, v0 = 0 }\n[canary]\nversion = \"v2\"\n[mirror]\nversion = \"v3\"",
            Instant::now(),
        );
        assert_eq!(split.serving(), ["v1", "v2"]);
        assert!(split.set(0));
        assert_eq!(split.serving(), ["v1"]);
    }

    #[test]
    fn what_cannot_be_shared_out_is_refused() {
        for bad in [
            "weights = {}",
            "weights = { v1 = 0 }",
            "weights = { v1 = 1 }\n[canary]\nversion = \"v1\"",
            "weights = { v1 = 1 }\n[canary]\nversion = \"v2\"\nsteps = []",
            "weights = { v1 = 1 }\n[canary]\nversion = \"v2\"\nsteps = [101]",
            "weights = { v1 = 1 }\n[canary]\nversion = \"v2\"\nwindow_s = 0",
            "weights = { v1 = 1 }\n[mirror]\nversion = \"v1\"",
            "weights = { v1 = 1 }\n[mirror]\nversion = \"v2\"\npercent = 101",
        ] {
            assert!(toml::from_str::<Versions>(bad).unwrap().validate().is_err(), "{bad}");
        }
    }
}
