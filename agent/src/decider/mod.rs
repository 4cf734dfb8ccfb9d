//! The decider: folds what tasks tell it, plans, publishes, and hands out
//! commands. It waits for nothing but its inputs and the next moment of its plan.
//!
//! - `commands`: sends each command to the task that executes it.
//! - `disk`: one write at a time, none of them waited for for ever.
//! - `files`: what is written down, and when.
//! - `operator`: what people ask on the control socket.
//! - `outages`: conditions that last, as events.
//! - `peers`: other agents of the same instances.
//! - `publish`: the snapshot that everybody reads, and its metrics.
//! - `routes`: the tasks that carry out commands.
//! - `sessions`: all sessions as JSON.
//! - `waits`: requests whose effect is awaited.
//! - `changes`: changes and holds as events.

mod changes;
mod commands;
mod disk;
mod files;
mod operator;
mod outages;
mod peers;
mod publish;
mod routes;
mod sessions;
mod waits;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use agent_core::{
    DatabaseName, Fault, InstanceId, ServerId, Time,
    health::{Fleet, Health, Remembered, Source},
    plan::{DrainSent, Hold, Outcome, Plan, Planner, Requested, Retired},
    session::{Ledger, Seen},
};
use agent_database::{LoginReport, Rights};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use disk::Disk;
pub use routes::{Orders, ProxyRoute, Routes};
use waits::Wait;

use crate::{
    clock,
    events::{Episodes, Event, GroupPaused},
    messages::{Answer, Input},
    seen::ProxyTable,
    shared::Shared,
    snapshot::{Disagreement, Line, Setup, Snapshot},
    state::{
        downs::{DownRecord, DownRecords},
        memory::MemoryFile,
        pause::{Pause, PauseFile},
        records::{DrainRecord, DrainRecords},
    },
};

/// Inputs are taken in together for this long, so that a burst is one plan.
const GATHER: Duration = Duration::from_millis(5);

/// The files of the state directory.
#[derive(Clone, Debug)]
pub struct Files {
    pub records: DrainRecords,
    /// Servers that are down.
    pub downs: DownRecords,
    pub memory: MemoryFile,
    pub pause: PauseFile,
    /// One write at a time, in order.
    pub disk: Disk,
}

/// Everything the decider is made of.
pub struct Decider {
    /// The health of all instances.
    pub health: Health,
    pub ledger: Ledger,
    pub planner: Planner,
    pub routes: Routes,
    /// What all tasks share.
    pub shared: Shared,
    /// The snapshot that everybody reads.
    pub publish: watch::Sender<Arc<Snapshot>>,
    pub files: Files,
    /// The agent's own drains, as on disk.
    pub records: Vec<(ServerId, DrainRecord)>,
    /// Records of proxies or servers that are no longer configured: kept for `release`.
    pub strays: Vec<DrainRecord>,
    /// Servers that are DOWN by the agent's answers, as on disk.
    pub downs: Vec<DownRecord>,
    /// The same of servers that are no longer configured, until they are lifted.
    pub stray_downs: Vec<DownRecord>,
    pub pause: Option<Pause>,
    /// What was last written about instances.
    pub remembered: Vec<Remembered>,
    pub setup: Arc<Setup>,
}

/// What changes while it runs.
struct Running {
    decider: Decider,
    fleet: Arc<Fleet>,
    lines: Arc<HashMap<String, Line>>,
    logins: Arc<BTreeMap<String, LoginReport>>,
    lost: Arc<BTreeMap<String, BTreeMap<Source, Fault>>>,
    rights: Arc<BTreeMap<String, Rights>>,
    tables: Arc<BTreeMap<String, Arc<ProxyTable>>>,
    retired: u64,
    remembered_at: Option<Time>,
    downs_at: Option<Time>,
    /// The last write of that record failed.
    downs_refused: bool,
    /// The last known writer of each database.
    writers: BTreeMap<DatabaseName, InstanceId>,
    /// Instances that an operator has named as the writer, and when.
    words: BTreeMap<DatabaseName, (InstanceId, Time)>,
    disagreements: Vec<Disagreement>,
    /// Since when other agents take another instance for the writer.
    disagree_since: BTreeMap<DatabaseName, Time>,
    /// Instances whose login budget is too small.
    short: BTreeSet<InstanceId>,
    /// When the records could not be written: the file says something else until they are.
    unstored: Option<Time>,
    episodes: Episodes,
    /// Answers to requests on the control socket, sent after what they changed is published.
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    /// Requests whose effect is awaited.
    waits: Vec<Wait>,
    /// Why the last drain of a server was not sent or not taken.
    causes: HashMap<ServerId, String>,
    /// What the last plan held.
    holds: Vec<Hold>,
    /// When the oldest joined session began, as last looked for.
    oldest: Option<Time>,
    oldest_at: Option<Time>,
    /// Where joined sessions come from, as looked for at the same time.
    outgoing: Arc<BTreeMap<InstanceId, BTreeSet<IpAddr>>>,
}

impl Decider {
    /// Publishes once more, with all servers released that are not down for their role: from now on no
    /// answer says otherwise. Returns when that was decided.
    pub fn release(&mut self) -> Time {
        let now = self.shared.clock.now();
        self.health.release(true);
        let fleet = Arc::new(self.health.fleet(now));
        let lines = Arc::new(publish::lines(&fleet, self.planner.drains(), now));
        self.publish.send_modify(|last| {
            *last = Arc::new(Snapshot { at: now, fleet, lines, ..last.as_ref().clone() });
        });
        now
    }

    /// Decides until told to stop. Returns with its drains still held: who stops
    /// it takes them back, or leaves them to the next one.
    pub async fn run(
        self,
        mut inputs: mpsc::Receiver<Input>,
        stop: CancellationToken,
    ) -> (Self, mpsc::Receiver<Input>) {
        let now = self.shared.clock.now();
        let mut running = Running {
            fleet: Arc::new(Snapshot::empty(now).fleet.as_ref().clone()),
            lines: Arc::default(),
            logins: Arc::default(),
            lost: Arc::default(),
            rights: Arc::default(),
            tables: Arc::default(),
            retired: 0,
            remembered_at: None,
            downs_at: None,
            downs_refused: false,
            writers: BTreeMap::new(),
            words: BTreeMap::new(),
            disagreements: Vec::new(),
            disagree_since: BTreeMap::new(),
            short: BTreeSet::new(),
            unstored: None,
            episodes: Episodes::default(),
            answers: Vec::new(),
            waits: Vec::new(),
            causes: HashMap::new(),
            holds: Vec::new(),
            oldest: None,
            oldest_at: None,
            outgoing: Arc::default(),
            decider: self,
        };
        for (server, record) in &running.decider.records {
            if record.operator {
                let until = record.until.map(|until| now + clock::seconds_until(until));
                let requested = Requested { until, empty: false, force: record.force };
                running.decider.planner.adopt_operators(server, requested, now);
            } else {
                running.decider.planner.adopt(server, now);
            }
        }
        if running.decider.pause.is_some() {
            running.decider.planner.pause();
            running.decider.health.release(true);
        }
        let mut wake = running.tick().await;
        loop {
            let clock = running.decider.shared.clock;
            let input = tokio::select! {
                () = stop.cancelled() => {
                    running.store_again(None).await;
                    return (running.decider, inputs);
                }
                input = inputs.recv() => input,
                () = sleep_until(clock.instant(wake)) => None,
            };
            if let Some(input) = input {
                running.take_in(input).await;
                tokio::time::sleep(GATHER).await;
                while let Ok(input) = inputs.try_recv() {
                    running.take_in(input).await;
                }
            }
            wake = running.tick().await;
            for (reply, answer) in running.answers.drain(..) {
                // A peer that has gone away wants no answer.
                let _ = reply.send(answer);
            }
        }
    }
}

impl Running {
    /// Folds one input. Nothing is decided here.
    async fn take_in(&mut self, input: Input) {
        let now = self.decider.shared.clock.now();
        match input {
            Input::Health(observation) => self.decider.health.observe(&observation),
            Input::Source { instance, source, lost } => {
                let all = Arc::make_mut(&mut self.lost);
                let sources = all.entry(instance.to_string()).or_default();
                match lost {
                    Some(fault) => drop(sources.insert(source, fault)),
                    None => drop(sources.remove(&source)),
                }
                all.retain(|_, sources| !sources.is_empty());
            }
            Input::Peers { instance, asked, at, look } => {
                self.tell_look(&instance, &look);
                self.decider.planner.observe_peers(&instance, asked, at, look);
            }
            Input::Address(login) => self.decider.health.observe_address(login),
            Input::Login(instance, report) => {
                Arc::make_mut(&mut self.logins).insert(instance.to_string(), *report);
            }
            Input::Rights(instance, rights) => {
                Arc::make_mut(&mut self.rights).insert(instance.to_string(), *rights);
            }
            Input::Activity { instance, at, only, rows } => {
                let seen = only.as_deref().map_or(Seen::All, Seen::Only);
                self.decider.ledger.observe_activity(&instance, at, seen, rows);
            }
            Input::Swept { proxy, at, sessions } => self.decider.ledger.observe_proxy(proxy, at, sessions),
            Input::Incomplete { proxy, at, sessions } => {
                self.decider.ledger.observe_some(proxy, at, sessions);
            }
            Input::Admin { proxy, at, flags, view, restarted } => {
                self.decider.ledger.proxy_alive(proxy, at);
                if restarted {
                    self.decider.planner.proxy_restarted(proxy, at);
                }
                self.decider.health.observe_proxy(proxy, at, view);
                for (server, flags) in flags {
                    if let Some(command) = self.decider.planner.observe_admin(&server, at, flags) {
                        self.carry_out(command).await;
                    }
                }
            }
            Input::Table { proxy, table } => drop(Arc::make_mut(&mut self.tables).insert(proxy, table)),
            Input::Endpoints { proxy, at, shown } => {
                self.decider.ledger.proxy_alive(proxy, at);
                for (server, drained) in shown {
                    if let Some(command) = self.decider.planner.observe_endpoint(&server, at, drained) {
                        self.carry_out(command).await;
                    }
                }
            }
            Input::Outcome(outcome) => {
                if let Outcome::Retire { retired, .. } = &outcome {
                    self.retired += u64::from(*retired == Retired::Closed);
                }
                match &outcome {
                    Outcome::Drain { server, sent: DrainSent::NotSent } => self.forget(server).await,
                    Outcome::Drain { server, .. } => {
                        self.sure_of_record(server).await;
                        self.tell_begun(server);
                    }
                    _ => {}
                }
                self.decider.planner.outcome(now, &outcome);
            }
            Input::Delivered(server, word) => self.decider.planner.delivered(&server, word),
            Input::StrayGone(record) => self.forget_stray(&record).await,
            Input::Lifted(record) => self.decider.stray_downs.retain(|known| *known != record),
            Input::Credentials(well) => self.decider.planner.observe_credentials(well),
            Input::NotDrained { server, error } => drop(self.causes.insert(server, error)),
            Input::Request(asked) => self.request(asked, now).await,
        }
    }

    /// Decides, publishes, commands. Returns when to do it again at the latest.
    async fn tick(&mut self) -> Time {
        let now = self.decider.shared.clock.now();
        self.decider.health.observe_admissions(self.decider.planner.drains().admissions());
        let mut fleet = self.decider.health.fleet(now);
        if self.follow_words(&fleet) {
            fleet = self.decider.health.fleet(now);
        }
        self.tell_changes(&fleet);
        self.tell_outages(&fleet);
        self.tell_disagreements(now);
        self.fleet = Arc::new(fleet);
        let began = Instant::now();
        let plan = {
            let budget = self.decider.shared.budget.lock();
            self.decider.planner.plan(now, &self.decider.ledger, &self.fleet, &budget)
        };
        let metrics = self.decider.shared.metrics.clone();
        metrics.plan_seconds.observe(began.elapsed().as_secs_f64());
        for group in self.decider.planner.take_paused_groups() {
            GroupPaused { group: &group }.emit(&metrics);
        }
        self.tell_holds(&plan);
        self.tell_unjoined(&plan, now);
        self.tell_shortages(&plan);
        self.publish(now, &plan);
        let Plan { commands, holds, next_wake: wake, .. } = plan;
        self.holds = holds;
        for command in commands {
            self.carry_out(command).await;
        }
        self.store_again(Some(now)).await;
        self.remember(now).await;
        self.record_downs(now).await;
        self.settle_waits(now).await;
        wake
    }
}
