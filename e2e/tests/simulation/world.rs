//! All programs in one process: a clock, a queue of scheduled actions, and replicas that pause and crash.
//!
//! The work of a replica is split into actions with at most one write each. Before an action the replica may
//! crash, or pause for longer than a lease. A crash loses its memory, such as the messages that it has claimed
//! and the calls that it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::messages::{Arrived, Outbox, Received};
use super::network::Network;
use super::orders::Orders;
use super::payments::Payments;
use super::people::People;
use super::random::Random;

/// The interval at which a replica polls for timers, due work and unsent messages, as in the programs.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

type Action = Box<dyn FnOnce(&mut World)>;
/// Writes the effect of one message. `None` if the version that was read is stale.
type Commit = Box<dyn FnOnce(&mut World) -> Option<Received>>;

pub(crate) struct World {
    pub(crate) now: OffsetDateTime,
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) orders: Orders,
    pub(crate) payments: Payments,
    pub(crate) network: Network,
    pub(crate) people: People,
    pub(crate) outboxes: BTreeMap<Service, Outbox>,
    pub(crate) replicas: [Replica; 4],
    /// Messages that arrive together are handled in one write. `None` without group commit.
    pub(crate) groups: Option<Groups>,
    /// The writes of the messages that were read so far, while the messages of a group are read.
    group: Option<Vec<Commit>>,
    /// What the writing replica does after its commit.
    on_commit: Vec<Action>,
    queue: BTreeMap<(OffsetDateTime, u64), Scheduled>,
    turn: u64,
    /// Log lines. None if the history is not kept.
    history: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Orders,
    Payments,
}

/// Groups of more than one message.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Groups {
    pub(crate) written: u64,
    /// Batches that failed: each of their messages was handled alone.
    pub(crate) failed: u64,
}

/// The probability of each fault, in thousandths.
pub(crate) struct Faults {
    pub(crate) loss: u64,
    pub(crate) delay: u64,
    pub(crate) copies: u64,
    pub(crate) slow_writes: u64,
    pub(crate) failed_writes: u64,
    pub(crate) unknown_commits: u64,
    pub(crate) crashes: u64,
    pub(crate) pauses: u64,
    /// Whether messages of one subject may be reordered.
    pub(crate) unordered: bool,
}

/// The memory of a replica, lost in a crash.
#[derive(Default)]
pub(crate) struct Replica {
    /// Changes at each crash and restart; odd while the replica is down. Actions of an earlier incarnation are
    /// dropped.
    incarnation: u64,
    paused_until: Option<OffsetDateTime>,
    /// The numbers of its unanswered calls.
    open: BTreeSet<u64>,
    /// Messages that wait for the group before them.
    pub(crate) inbox: Vec<Arrived>,
    pub(crate) handles_group: bool,
}

/// A call of a replica that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) replica: usize,
    incarnation: u64,
    number: u64,
}

struct Scheduled {
    /// The replica and its incarnation. None if the action does not belong to a replica.
    by: Option<(usize, u64)>,
    is_poll: bool,
    action: Action,
}

impl Service {
    pub(crate) fn of(replica: usize) -> Self {
        if replica < 2 { Self::Orders } else { Self::Payments }
    }

    fn replicas(self) -> [usize; 2] {
        match self {
            Self::Orders => [0, 1],
            Self::Payments => [2, 3],
        }
    }
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self {
            loss: 0,
            delay: 0,
            copies: 0,
            slow_writes: 0,
            failed_writes: 0,
            unknown_commits: 0,
            crashes: 0,
            pauses: 0,
            unordered: false,
        }
    }

    pub(crate) fn random(random: &mut Random) -> Self {
        let mut rare = |most| if random.per_mille(300) { 0 } else { random.below(most) };
        Self {
            loss: rare(300),
            delay: rare(300),
            copies: rare(200),
            slow_writes: rare(200),
            failed_writes: rare(100),
            unknown_commits: rare(50),
            crashes: rare(20),
            pauses: rare(20),
            unordered: rare(2) == 1,
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64, keep_history: bool) -> Self {
        let mut random = Random::from_seed(seed);
        let faults = Faults::random(&mut random);
        let mut world = Self {
            now: START,
            faults,
            orders: Orders::random(&mut random),
            payments: Payments::default(),
            network: Network::default(),
            people: People::default(),
            outboxes: [Service::Orders, Service::Payments].map(|service| (service, Outbox::default())).into(),
            replicas: Default::default(),
            groups: None,
            group: None,
            on_commit: Vec::new(),
            queue: BTreeMap::new(),
            turn: 0,
            history: keep_history.then(Vec::new),
            random,
        };
        (0..4).for_each(|replica| world.poll(replica));
        world
    }

    /// Runs all actions of the next `time`.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), due) = entry.remove_entry();
            self.now = at;
            match due.by {
                Some((replica, incarnation)) if incarnation != self.replicas[replica].incarnation => {}
                Some((replica, _)) if !self.may_act(replica) => {
                    let later = self.replicas[replica].paused_until.unwrap_or(at);
                    self.put(later, due);
                }
                _ => (due.action)(self),
            }
        }
        self.now = end;
    }

    /// Whether only polls are scheduled.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.values().all(|due| due.is_poll)
    }

    /// Schedules an action that does not belong to a replica.
    pub(crate) fn schedule(&mut self, delay: Duration, action: impl FnOnce(&mut Self) + 'static) {
        self.put(self.now + delay, Scheduled { by: None, is_poll: false, action: Box::new(action) });
    }

    /// Schedules an action of a replica. A crash drops it.
    pub(crate) fn on(&mut self, replica: usize, delay: Duration, action: impl FnOnce(&mut Self) + 'static) {
        let by = Some((replica, self.replicas[replica].incarnation));
        self.put(self.now + delay, Scheduled { by, is_poll: false, action: Box::new(action) });
    }

    /// Begins a call of a replica.
    pub(crate) fn call(&mut self, replica: usize) -> Call {
        self.turn += 1;
        self.replicas[replica].open.insert(self.turn);
        Call { replica, incarnation: self.replicas[replica].incarnation, number: self.turn }
    }

    /// Schedules an answer to `call`, or its time-out. Only the first one of a call has an effect.
    pub(crate) fn answer(&mut self, call: Call, delay: Duration, action: impl FnOnce(&mut Self) + 'static) {
        let action = Box::new(move |world: &mut Self| {
            if world.replicas[call.replica].open.remove(&call.number) {
                action(world);
            }
        });
        self.put(
            self.now + delay,
            Scheduled { by: Some((call.replica, call.incarnation)), is_poll: false, action },
        );
    }

    /// Sends a request over the network, which may lose, delay or duplicate it. The argument of `arrives` says
    /// whether the network will deliver the answer.
    pub(crate) fn send_over_network(&mut self, arrives: impl Fn(&mut Self, bool) + Clone + 'static) {
        let late = self.random.within(Duration::from_secs(20));
        let soon = self.random.within(Duration::from_millis(10));
        let (copy, original) = (arrives.clone(), arrives);
        if self.random.per_mille(self.faults.copies) {
            self.schedule(late, move |world| copy(world, false));
        }
        let (request_is_lost, answer_is_lost) =
            (self.random.per_mille(self.faults.loss), self.random.per_mille(self.faults.loss));
        let delay = if self.random.per_mille(self.faults.delay) { late } else { soon };
        if !request_is_lost {
            self.schedule(delay, move |world| original(world, !answer_is_lost));
        }
    }

    /// A replica of the service that is up, if any is.
    pub(crate) fn replica_of(&mut self, service: Service) -> Option<usize> {
        let [one, other] = service.replicas();
        let first = self.random.pick(&[one, other]);
        [first, one + other - first].into_iter().find(|replica| self.is_up(*replica))
    }

    /// Writes in a transaction of a replica, perhaps long after its reads. The commit may fail, or succeed
    /// without an answer to the replica. In both cases `then` gets `None`, and the `on_commit` actions are
    /// dropped.
    pub(crate) fn write<T: 'static>(
        &mut self,
        replica: usize,
        commit: impl FnOnce(&mut Self) -> Option<T> + 'static,
        then: impl FnOnce(&mut Self, Option<T>) + 'static,
    ) {
        let is_slow = self.random.per_mille(self.faults.slow_writes);
        let delay = if is_slow { self.random.within(Duration::from_secs(2)) } else { Duration::ZERO };
        self.on(replica, delay, move |world| {
            let fails = world.random.per_mille(world.faults.failed_writes);
            let outcome = if fails { None } else { commit(world) };
            let actions = std::mem::take(&mut world.on_commit);
            let is_known = outcome.is_none() || !world.random.per_mille(world.faults.unknown_commits);
            if !is_known {
                world.log(|| format!("{} gets no answer to its commit", name(replica)));
            }
            let happens = if is_known { actions } else { Vec::new() };
            happens.into_iter().for_each(|action| world.on(replica, Duration::ZERO, action));
            world.on(replica, Duration::ZERO, move |world| then(world, outcome.filter(|_| is_known)));
        });
    }

    /// Writes the effect of a message alone, or together with the others of its group.
    pub(crate) fn write_message(
        &mut self,
        replica: usize,
        commit: impl FnOnce(&mut Self) -> Option<Received> + 'static,
        then: impl FnOnce(&mut Self, Option<Received>) + 'static,
    ) {
        match &mut self.group {
            Some(group) => group.push(Box::new(commit)),
            None => self.write(replica, commit, then),
        }
    }

    /// Writes the effects of a group of messages, all or none. `read` reads each of them.
    pub(crate) fn write_group(
        &mut self,
        replica: usize,
        read: impl FnOnce(&mut Self),
        then: impl FnOnce(&mut Self, Option<Vec<Received>>) + 'static,
    ) {
        self.group = Some(Vec::new());
        read(self);
        let group = self.group.take().unwrap_or_default();
        let commit = move |world: &mut Self| {
            let before = (world.orders.clone(), world.payments.clone(), world.outboxes.clone());
            let received: Option<Vec<_>> = group.into_iter().map(|commit| commit(world)).collect();
            if received.is_none() {
                world.log(|| format!("{} rolls a group of messages back", name(replica)));
                (world.orders, world.payments, world.outboxes) = before;
                world.on_commit.clear();
            }
            received
        };
        self.write(replica, commit, then);
    }

    /// Adds an action of the writing replica, run after the commit if the replica gets its answer.
    pub(crate) fn on_commit(&mut self, action: impl FnOnce(&mut Self) + 'static) {
        self.on_commit.push(Box::new(action));
    }

    /// Crashes a replica, and restarts it after `time`.
    pub(crate) fn crash(&mut self, replica: usize, time: Duration) {
        if self.is_up(replica) {
            self.log(|| format!("{} crashes", name(replica)));
            let incarnation = self.replicas[replica].incarnation + 1;
            self.replicas[replica] = Replica { incarnation, ..Replica::default() };
            self.schedule(time, move |world| world.restart(replica));
        }
    }

    /// Ends all pauses and restarts all crashed replicas.
    pub(crate) fn heal(&mut self) {
        for replica in 0..4 {
            self.replicas[replica].paused_until = None;
            if !self.is_up(replica) {
                self.restart(replica);
            }
        }
    }

    /// Adds a line to the history, if it is kept.
    pub(crate) fn log(&mut self, what: impl FnOnce() -> String) {
        let now = self.now - START;
        if let Some(history) = &mut self.history {
            history.push(format!("{:>9.3} s  {}", now.as_seconds_f64(), what()));
        }
    }

    pub(crate) fn history(&self) -> &[String] {
        self.history.as_deref().unwrap_or_default()
    }

    fn is_up(&self, replica: usize) -> bool {
        self.replicas[replica].incarnation.is_multiple_of(2)
    }

    fn restart(&mut self, replica: usize) {
        if !self.is_up(replica) {
            self.replicas[replica].incarnation += 1;
            self.poll(replica);
        }
    }

    /// Whether a replica may run its next action. It may be paused, or pause or crash now.
    fn may_act(&mut self, replica: usize) -> bool {
        if self.random.per_mille(self.faults.crashes) {
            let longest = self.random.pick(&[1, 1, 10, 40]);
            let time = self.random.within(Duration::from_secs(longest));
            self.crash(replica, time);
        } else if self.random.per_mille(self.faults.pauses) {
            let time = self.random.within(Duration::from_secs(20));
            self.log(|| format!("{} pauses for {time:?}", name(replica)));
            self.replicas[replica].paused_until = Some(self.now + time);
        }
        self.is_up(replica) && self.replicas[replica].paused_until.is_none_or(|until| until <= self.now)
    }

    /// Lets a replica poll at regular intervals.
    fn poll(&mut self, replica: usize) {
        let by = Some((replica, self.replicas[replica].incarnation));
        let action = Box::new(move |world: &mut Self| {
            world.send_unsent(replica);
            match Service::of(replica) {
                Service::Orders => world.poll_timers(replica),
                Service::Payments => world.poll_work(replica),
            }
            world.poll(replica);
        });
        let jitter = self.random.within(Duration::from_millis(100));
        self.put(self.now + POLL_INTERVAL - jitter, Scheduled { by, is_poll: true, action });
    }

    fn put(&mut self, at: OffsetDateTime, due: Scheduled) {
        self.turn += 1;
        self.queue.insert((at, self.turn), due);
    }
}

/// The beginning of an order's id.
pub(crate) fn short(order: Uuid) -> String {
    order.to_string()[..4].to_owned()
}

pub(crate) fn name(replica: usize) -> String {
    format!("{:?} {}", Service::of(replica), 1 + replica % 2)
}
