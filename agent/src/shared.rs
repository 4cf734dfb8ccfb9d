//! What all tasks share: the clock, the login budgets, the way to the decider; and how they wait.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_core::{
    InstanceId, Time,
    plan::{Budget, Outcome, Policy, Purpose, Retire, Retired, Ticket},
    topology::{Comparison, Member},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc, watch},
    time::Instant,
};

use crate::{
    clock::Clock, events::Recent, hand_offs::HandOffs, messages::Input, metrics::Metrics, snapshot::Snapshot,
    starvation::Starvation,
};

/// What all tasks share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shared {
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    /// The login budgets of all instances.
    pub budget: SharedBudget,
    /// What the decider last published.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    pub decider: mpsc::Sender<Input>,
    /// What must not be cut off half-way.
    pub ongoing: Ongoing,
    /// How long the agent itself was delayed.
    pub starvation: Starvation,
    /// The agent checks that arrive.
    pub questions: Questions,
    /// The last log lines.
    pub recent: Recent,
    /// Client sessions that failed.
    pub hand_offs: HandOffs,
    /// What AWS reports.
    pub topologies: Topologies,
}

impl Shared {
    /// For a new process: nothing is used of the budgets of `policy`, nothing goes on.
    pub fn new(
        clock: Clock,
        metrics: Arc<Metrics>,
        policy: &Policy,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        decider: mpsc::Sender<Input>,
    ) -> Self {
        let budget = SharedBudget::new(policy);
        let (ongoing, starvation) = (Ongoing::default(), Starvation::default());
        let (questions, recent) = (Questions::default(), Recent::default());
        let (hand_offs, topologies) = (HandOffs::default(), Topologies::default());
        Self {
            clock,
            metrics,
            budget,
            snapshot,
            decider,
            ongoing,
            starvation,
            questions,
            recent,
            hand_offs,
            topologies,
        }
    }

    /// Tells the decider. It never waits for anything else, so this never waits long.
    pub async fn send(&self, input: Input) {
        // It only fails while everything stops.
        let _ = self.decider.send(input).await;
    }

    /// Notes that the agent begins to close a session, so that its end is no failure.
    pub fn close_begins(&self, command: &Retire) {
        self.hand_offs.close_begins(self.clock.now(), command);
    }

    /// Tells the decider what became of a close.
    pub async fn close_ended(&self, command: &Retire, retired: Retired) {
        self.hand_offs.close_ended(self.clock.now(), command, retired);
        let (instance, key) = (command.instance.clone(), command.key);
        self.send(Input::Outcome(Outcome::Retire { instance, key, retired })).await;
    }

    /// A permit of an instance's login budget, if one is free now.
    pub fn permit(&self, instance: &InstanceId, purpose: Purpose) -> Option<Permit> {
        let ticket = self.budget.lock().try_begin(instance, purpose, self.clock.now())?;
        Some(Permit { ticket: Some(ticket), budget: self.budget.clone(), clock: self.clock })
    }
}

/// A permit of the login budget. Dropped, it counts as just used, so that a task that
/// is stopped half-way does not keep it.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once bounds nothing"]
pub struct Permit {
    ticket: Option<Ticket>,
    budget: SharedBudget,
    clock: Clock,
}

impl Permit {
    /// Nothing was done at the database: the permit is free at once.
    pub fn cancel(mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.budget.lock().cancel(ticket);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.budget.lock().finish(ticket, self.clock.now());
        }
    }
}

/// Commands under way, which are let end before the tasks that carry them out are
/// stopped: a drain that was sent while its task no longer waits for it might take hold
/// after everybody has looked, and stay.
#[derive(Clone, Debug)]
pub struct Ongoing(Arc<Semaphore>);

impl Default for Ongoing {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(Self::MOST as usize)))
    }
}

impl Ongoing {
    /// At once. Far more than there are tasks.
    const MOST: u32 = 1 << 16;

    /// Begins one; it lasts until what is returned is dropped.
    pub async fn begin(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.0.acquire().await.ok()
    }

    /// Waits until none is under way. None begins before what is returned is dropped,
    /// nor while this waits. `None` when the patience is over first.
    pub async fn rest(&self, patience: Duration) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(patience, self.0.acquire_many(Self::MOST)).await.ok()?.ok()
    }
}

/// When the last agent check for each configured server arrived, by `backend/server`.
#[derive(Clone, Debug, Default)]
pub struct Questions(Arc<Mutex<HashMap<String, Instant>>>);

impl Questions {
    pub fn heard(&self, server: &str) {
        let mut heard = self.lock();
        match heard.get_mut(server) {
            Some(at) => *at = Instant::now(),
            None => drop(heard.insert(server.to_owned(), Instant::now())),
        }
    }

    /// The time without an agent check for a server, counted from `since` on.
    pub fn silent_for(&self, server: &str, since: Instant) -> Duration {
        self.lock().get(server).map_or(since, |at| since.max(*at)).elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What AWS last reported of each database with `topology`, by its name. Kept by a reload.
#[derive(Clone, Debug, Default)]
pub struct Topologies(Arc<Mutex<BTreeMap<String, TopologySeen>>>);

/// What AWS last reported of one database.
#[derive(Clone, Debug, Default)]
pub struct TopologySeen {
    /// What AWS is asked for.
    pub asked: String,
    /// By the last answer.
    pub members: Vec<Member>,
    pub comparison: Comparison,
    /// When it answered last.
    pub answered: Option<Time>,
    /// Why it does not answer now.
    pub error: Option<String>,
}

impl Topologies {
    /// Changes or reads what is known of a database. What was known by another question is forgotten.
    pub fn with<T>(&self, database: &str, asked: &str, change: impl FnOnce(&mut TopologySeen) -> T) -> T {
        let mut topologies = self.lock();
        let seen = topologies.entry(database.to_owned()).or_default();
        if seen.asked != asked {
            *seen = TopologySeen { asked: asked.to_owned(), ..TopologySeen::default() };
        }
        change(seen)
    }

    /// Forgets the databases that are no longer compared.
    pub fn keep(&self, compared: impl Fn(&str) -> bool) {
        self.lock().retain(|database, _| compared(database));
    }

    pub fn all(&self) -> BTreeMap<String, TopologySeen> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, TopologySeen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The login budgets, shared between the tasks that log in and the one that plans.
#[derive(Clone, Debug)]
pub struct SharedBudget(Arc<Mutex<Budget>>);

impl SharedBudget {
    /// The budgets of this policy.
    pub fn new(policy: &Policy) -> Self {
        let shared = Self(Arc::new(Mutex::new(Budget::new(policy.login_budget))));
        shared.follow(policy);
        shared
    }

    /// Another policy from now on.
    pub fn follow(&self, policy: &Policy) {
        let mut budget = self.lock();
        budget.set_per_second(policy.login_budget);
        budget.set_failover_per_second(policy.failover_budget);
    }

    /// Held for moments only: no caller waits for anything inside.
    pub fn lock(&self) -> MutexGuard<'_, Budget> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A random number. `RandomState` is seeded by the system.
pub fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// A random share of a duration: the phase of something periodic.
pub fn part_of(duration: Duration) -> Duration {
    duration.mul_f64((random() >> 11) as f64 / (1_u64 << 53) as f64)
}

/// A duration spread by ±20 %, so that agents and instances do not march in step.
pub fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.8) + part_of(duration.mul_f64(0.4))
}

/// Waits that grow while something fails.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// From `first`, doubling up to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, first, most }
    }

    /// How long to wait now.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.most);
        jittered(wait)
    }

    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_let_end_and_nothing_begins_meanwhile() {
        let ongoing = Ongoing::default();
        let one = ongoing.begin().await.unwrap();
        assert!(ongoing.rest(Duration::from_secs(1)).await.is_none(), "one is under way");
        drop(one);
        let rest = ongoing.rest(Duration::from_secs(1)).await.unwrap();
        let begun = tokio::time::timeout(Duration::from_secs(1), ongoing.begin()).await;
        assert!(begun.is_err(), "none begins while the tasks are being stopped");
        drop(rest);
        assert!(ongoing.begin().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_is_stopped_half_way_does_not_keep_its_place() {
        let policy = Policy { login_budget: 1, ..Policy::default() };
        let clock = Clock::start();
        let (decider, _inputs) = mpsc::channel(1);
        let (_publish, snapshot) = watch::channel(Arc::new(Snapshot::empty(clock.now())));
        let shared = Shared::new(clock, Arc::default(), &policy, snapshot, decider);
        let instance = InstanceId::new("orders", "a");
        let permit = shared.permit(&instance, Purpose::Login).unwrap();
        assert!(shared.permit(&instance, Purpose::Login).is_none(), "there is only one");
        drop(permit);
        assert!(shared.permit(&instance, Purpose::Login).is_none(), "it may have logged in");
        tokio::time::advance(Duration::from_millis(1_200)).await;
        shared.permit(&instance, Purpose::Login).unwrap().cancel();
        assert!(shared.permit(&instance, Purpose::Login).is_some(), "a cancelled one is free at once");
    }
}
