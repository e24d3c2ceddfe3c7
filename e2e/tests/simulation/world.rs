//! One process that is all programs at once: a clock, a queue of what happens next, and replicas that
//! pause and crash.
//!
//! Everything that a replica does is cut into actions, at most one write in each. Before any action
//! its replica may pause, for longer than a lease, or crash: then everything that only it knew is
//! gone, such as messages it had claimed and answers it waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::chance::Chance;
use super::mail::Outbox;
use super::network::Network;
use super::orders::Orders;
use super::payments::Payments;
use super::people::People;

/// How often a replica looks for timers, due work and unsent messages; as in the programs.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// Something that happens.
type Action = Box<dyn FnOnce(&mut World)>;

pub(crate) struct World {
    pub(crate) now: OffsetDateTime,
    pub(crate) chance: Chance,
    pub(crate) weather: Weather,
    pub(crate) orders: Orders,
    pub(crate) payments: Payments,
    pub(crate) network: Network,
    pub(crate) people: People,
    /// What each service has to send.
    pub(crate) outboxes: BTreeMap<Service, Outbox>,
    replicas: [Replica; 4],
    /// What the replica that writes now does when it hears that it has written.
    on_commit: Vec<Action>,
    queue: BTreeMap<(OffsetDateTime, u64), Due>,
    turn: u64,
    /// What happened, if somebody wants to read it.
    history: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Orders,
    Payments,
}

/// How often things go wrong, in a thousand times.
pub(crate) struct Weather {
    pub(crate) loss: u64,
    pub(crate) delay: u64,
    pub(crate) copies: u64,
    pub(crate) slow_writes: u64,
    pub(crate) failed_writes: u64,
    pub(crate) unknown_commits: u64,
    pub(crate) crashes: u64,
    pub(crate) pauses: u64,
    /// Whether messages of one subject may overtake each other.
    pub(crate) disorder: bool,
}

/// What is lost in a crash.
#[derive(Default)]
struct Replica {
    /// Odd while it is down; no action of an earlier life happens in a later one.
    life: u64,
    paused_until: Option<OffsetDateTime>,
    /// The calls whose answers it waits for.
    open: BTreeSet<u64>,
}

/// An answer that a replica waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) replica: usize,
    life: u64,
    number: u64,
}

struct Due {
    /// The replica that does it, and in which life; otherwise it happens somewhere else.
    by: Option<(usize, u64)>,
    /// Whether it is only a look for something to do.
    is_look: bool,
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

impl Weather {
    pub(crate) fn calm() -> Self {
        Self {
            loss: 0,
            delay: 0,
            copies: 0,
            slow_writes: 0,
            failed_writes: 0,
            unknown_commits: 0,
            crashes: 0,
            pauses: 0,
            disorder: false,
        }
    }

    pub(crate) fn any(chance: &mut Chance) -> Self {
        let mut rare = |most| if chance.per_mille(300) { 0 } else { chance.below(most) };
        Self {
            loss: rare(300),
            delay: rare(300),
            copies: rare(200),
            slow_writes: rare(200),
            failed_writes: rare(100),
            unknown_commits: rare(50),
            crashes: rare(20),
            pauses: rare(20),
            disorder: rare(2) == 1,
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64, is_told: bool) -> Self {
        let mut chance = Chance::of(seed);
        let weather = Weather::any(&mut chance);
        let mut world = Self {
            now: START,
            weather,
            orders: Orders::any(&mut chance),
            payments: Payments::default(),
            network: Network::default(),
            people: People::default(),
            outboxes: [Service::Orders, Service::Payments].map(|service| (service, Outbox::default())).into(),
            replicas: Default::default(),
            on_commit: Vec::new(),
            queue: BTreeMap::new(),
            turn: 0,
            history: is_told.then(Vec::new),
            chance,
        };
        (0..4).for_each(|replica| world.look(replica));
        world
    }

    /// Lets everything happen that happens within `time`.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), due) = entry.remove_entry();
            self.now = at;
            match due.by {
                Some((replica, life)) if life != self.replicas[replica].life => {}
                Some((replica, _)) if !self.goes_on(replica) => {
                    let later = self.replicas[replica].paused_until.unwrap_or(at);
                    self.put(later, due);
                }
                _ => (due.action)(self),
            }
        }
        self.now = end;
    }

    /// Whether nothing is left to happen but looks.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.values().all(|due| due.is_look)
    }

    /// Lets something happen outside of all replicas.
    pub(crate) fn outside(&mut self, delay: Duration, action: impl FnOnce(&mut Self) + 'static) {
        self.put(self.now + delay, Due { by: None, is_look: false, action: Box::new(action) });
    }

    /// Lets a replica do something, if it still lives then.
    pub(crate) fn on(&mut self, replica: usize, delay: Duration, action: impl FnOnce(&mut Self) + 'static) {
        let by = Some((replica, self.replicas[replica].life));
        self.put(self.now + delay, Due { by, is_look: false, action: Box::new(action) });
    }

    /// A call of a replica, for whose answer it waits.
    pub(crate) fn call(&mut self, replica: usize) -> Call {
        self.turn += 1;
        self.replicas[replica].open.insert(self.turn);
        Call { replica, life: self.replicas[replica].life, number: self.turn }
    }

    /// An answer to `call`, or the end of the caller's patience; whatever comes first counts.
    pub(crate) fn answer(&mut self, call: Call, delay: Duration, action: impl FnOnce(&mut Self) + 'static) {
        let action = Box::new(move |world: &mut Self| {
            if world.replicas[call.replica].open.remove(&call.number) {
                action(world);
            }
        });
        self.put(self.now + delay, Due { by: Some((call.replica, call.life)), is_look: false, action });
    }

    /// Carries something over the network; it arrives as often and as late as the weather has it.
    /// `arrives` is told whether its answer can come back.
    pub(crate) fn carry(&mut self, arrives: impl Fn(&mut Self, bool) + Clone + 'static) {
        let late = self.chance.within(Duration::from_secs(20));
        let soon = self.chance.within(Duration::from_millis(10));
        let (copy, original) = (arrives.clone(), arrives);
        if self.chance.per_mille(self.weather.copies) {
            self.outside(late, move |world| copy(world, false));
        }
        let (request_is_lost, answer_is_lost) =
            (self.chance.per_mille(self.weather.loss), self.chance.per_mille(self.weather.loss));
        let delay = if self.chance.per_mille(self.weather.delay) { late } else { soon };
        if !request_is_lost {
            self.outside(delay, move |world| original(world, !answer_is_lost));
        }
    }

    /// A replica of the service that is up, if any is.
    pub(crate) fn replica_of(&mut self, service: Service) -> Option<usize> {
        let [one, other] = service.replicas();
        let first = self.chance.pick(&[one, other]);
        [first, one + other - first].into_iter().find(|replica| self.is_up(*replica))
    }

    /// A transaction of a replica that has read what it needs and now writes, perhaps much later. A
    /// database that fails has written nothing, and says so; or it has written everything, and fails
    /// before it can say so: then nothing that waits for the commit happens.
    pub(crate) fn write<T: 'static>(
        &mut self,
        replica: usize,
        commit: impl FnOnce(&mut Self) -> Option<T> + 'static,
        then: impl FnOnce(&mut Self, Option<T>) + 'static,
    ) {
        let is_slow = self.chance.per_mille(self.weather.slow_writes);
        let delay = if is_slow { self.chance.within(Duration::from_secs(2)) } else { Duration::ZERO };
        self.on(replica, delay, move |world| {
            let fails = world.chance.per_mille(world.weather.failed_writes);
            let outcome = if fails { None } else { commit(world) };
            let actions = std::mem::take(&mut world.on_commit);
            let is_known = outcome.is_none() || !world.chance.per_mille(world.weather.unknown_commits);
            if !is_known {
                world.tell(|| format!("{} does not hear that it has written", name(replica)));
            }
            let happens = if is_known { actions } else { Vec::new() };
            happens.into_iter().for_each(|action| world.on(replica, Duration::ZERO, action));
            world.on(replica, Duration::ZERO, move |world| then(world, outcome.filter(|_| is_known)));
        });
    }

    /// Lets the replica that writes now do something when it hears that it has written.
    pub(crate) fn on_commit(&mut self, action: impl FnOnce(&mut Self) + 'static) {
        self.on_commit.push(Box::new(action));
    }

    /// Lets a replica crash; it is back after `time`.
    pub(crate) fn crash(&mut self, replica: usize, time: Duration) {
        if self.is_up(replica) {
            self.tell(|| format!("{} crashes", name(replica)));
            let life = self.replicas[replica].life + 1;
            self.replicas[replica] = Replica { life, ..Replica::default() };
            self.outside(time, move |world| world.restart(replica));
        }
    }

    /// Ends all pauses, and starts whatever is down.
    pub(crate) fn heal(&mut self) {
        for replica in 0..4 {
            self.replicas[replica].paused_until = None;
            if !self.is_up(replica) {
                self.restart(replica);
            }
        }
    }

    /// Notes what happened, if somebody wants to read it.
    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        let now = self.now - START;
        if let Some(history) = &mut self.history {
            history.push(format!("{:>9.3} s  {}", now.as_seconds_f64(), what()));
        }
    }

    pub(crate) fn history(&self) -> &[String] {
        self.history.as_deref().unwrap_or_default()
    }

    fn is_up(&self, replica: usize) -> bool {
        self.replicas[replica].life.is_multiple_of(2)
    }

    fn restart(&mut self, replica: usize) {
        if !self.is_up(replica) {
            self.replicas[replica].life += 1;
            self.look(replica);
        }
    }

    /// Whether a replica goes on with its next action: it may be paused, or pause or crash now.
    fn goes_on(&mut self, replica: usize) -> bool {
        if self.chance.per_mille(self.weather.crashes) {
            let longest = self.chance.pick(&[1, 1, 10, 40]);
            let time = self.chance.within(Duration::from_secs(longest));
            self.crash(replica, time);
        } else if self.chance.per_mille(self.weather.pauses) {
            let time = self.chance.within(Duration::from_secs(20));
            self.tell(|| format!("{} pauses for {time:?}", name(replica)));
            self.replicas[replica].paused_until = Some(self.now + time);
        }
        self.is_up(replica) && self.replicas[replica].paused_until.is_none_or(|until| until <= self.now)
    }

    /// A replica looks for something to do, again and again.
    fn look(&mut self, replica: usize) {
        let by = Some((replica, self.replicas[replica].life));
        let action = Box::new(move |world: &mut Self| {
            world.send_unsent(replica);
            match Service::of(replica) {
                Service::Orders => world.look_for_timers(replica),
                Service::Payments => world.look_for_work(replica),
            }
            world.look(replica);
        });
        let jitter = self.chance.within(Duration::from_millis(100));
        self.put(self.now + LOOK - jitter, Due { by, is_look: true, action });
    }

    fn put(&mut self, at: OffsetDateTime, due: Due) {
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
