//! Invariants of a stack at work. Its parts are asked one after the other while orders move, and a fault of the lab
//! holds orders up. So a violation counts as broken only if every look of [`SETTLING`] has found it, with the same
//! words, and none of these looks found a fault. A fault that begins and ends between two looks is not noticed. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::invariants::Invariant;

/// A violation is settling for this time: longer than a checkout waits for the card network.
pub const SETTLING: Duration = Duration::from_secs(60);
/// The longest time between two looks. After a longer one nobody knows what happened meanwhile, and every violation
/// starts again.
const LONGEST_GAP: Duration = Duration::from_secs(15);
/// Violations of one invariant that are named.
const NAMED: usize = 5;

#[derive(Debug, Default)]
pub struct Standing {
    /// The first time of each violation, by invariant and text.
    since: BTreeMap<(&'static str, String), Instant>,
    last_look: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Holds,
    /// Violations that may be gone at the next look.
    Settling,
    Broken,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub name: &'static str,
    pub promise: &'static str,
    pub checked: usize,
    pub state: State,
    /// The number of violations that decide the state.
    pub found: usize,
    /// The first of them, as text.
    pub violations: Vec<String>,
}

impl Standing {
    /// `is_faulty`: a fault runs, or may run in a program that does not answer.
    pub fn judge(&mut self, invariants: Vec<Invariant>, is_faulty: bool, now: Instant) -> Vec<Judged> {
        let last_look = self.last_look.replace(now);
        let is_late = last_look.is_some_and(|last| now.saturating_duration_since(last) > LONGEST_GAP);
        let begins_anew = is_faulty || is_late;
        let mut standing = BTreeMap::new();
        let judged = invariants.into_iter().map(|Invariant { name, promise, checked, broken }| {
            let (mut old, mut new) = (Vec::new(), Vec::new());
            for words in broken {
                let known = self.since.get(&(name, words.clone())).filter(|_| !begins_anew);
                let since = known.copied().unwrap_or(now);
                standing.insert((name, words.clone()), since);
                let is_old = now.saturating_duration_since(since) >= SETTLING;
                if is_old { old.push(words) } else { new.push(words) }
            }
            let (state, mut violations) = match (old.is_empty(), new.is_empty()) {
                (false, _) => (State::Broken, old),
                (true, false) => (State::Settling, new),
                (true, true) => (State::Holds, new),
            };
            let found = violations.len();
            violations.truncate(NAMED);
            Judged { name, promise, checked, state, found, violations }
        });
        let judged = judged.collect();
        self.since = standing;
        judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invariant(broken: &[&str]) -> Vec<Invariant> {
        let broken = broken.iter().map(|words| (*words).to_owned()).collect();
        vec![Invariant { name: "kept", promise: "it is kept", checked: 7, broken }]
    }

    #[test]
    fn a_violation_is_broken_only_after_it_has_stood_at_every_look_without_a_fault() {
        let (mut standing, begun) = (Standing::default(), Instant::now());
        let mut look = |broken: &[&str], is_faulty: bool, seconds: u64| {
            let now = begun + Duration::from_secs(seconds);
            let judged = standing.judge(invariant(broken), is_faulty, now).remove(0);
            (judged.state, judged.violations)
        };
        let words = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        assert_eq!(look(&[], false, 0), (State::Holds, words(&[])));
        for seconds in [10, 25, 40, 55, 69] {
            assert_eq!(look(&["a"], false, seconds), (State::Settling, words(&["a"])), "{seconds}");
        }
        assert_eq!(look(&["a", "b"], false, 70), (State::Broken, words(&["a"])), "b is new");
        assert_eq!(look(&["a"], true, 80), (State::Settling, words(&["a"])), "a fault runs");
        for seconds in [95, 110, 125, 139] {
            assert_eq!(look(&["a"], false, seconds), (State::Settling, words(&["a"])), "{seconds}");
        }
        assert_eq!(look(&["a"], false, 140), (State::Broken, words(&["a"])), "a minute later");
        assert_eq!(look(&["a"], false, 156), (State::Settling, words(&["a"])), "nobody has looked");
        for seconds in [170, 185, 200, 215] {
            assert_eq!(look(&["a"], false, seconds), (State::Settling, words(&["a"])), "{seconds}");
        }
        assert_eq!(look(&["a"], false, 216), (State::Broken, words(&["a"])), "the gap was over");
        assert_eq!(look(&["c"], false, 220), (State::Settling, words(&["c"])), "another one");
        assert_eq!(look(&[], false, 230), (State::Holds, words(&[])));
    }
}
