//! The agent's tasks around the real decisions: logins, queries on a kept connection, looks at the proxy. Their
//! pauses and time limits are those of `agent/src/instances` and of `Limits` in `agent/database`.
//!
//! Not here: sessions. The ledger is empty and the planner closes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use agent_core::{
    Evidence, Fault, FaultKind, InstanceId, Phase, ProxyIndex, ServerId, Time,
    freshness::{Freshness, STARTING},
    health::{
        Down, Fleet, FleetConfig, Health, HealthRules, Observation, Remembered, Role, RoleFacts, Routing,
        ServerConfig, WantedRole,
    },
    plan::{Budget, Command, Plan, Planner, Policy},
    session::Ledger,
};

use crate::{
    haproxy::backend,
    random::Random,
    script::{ProxyKind, Script},
    world::{Condition, Path, Refuses, World},
};

pub const ROLES: [Role; 2] = [Role::Writer, Role::Reader];

/// From the look at the server to the answer's arrival.
pub const LATENCY: Duration = Duration::from_millis(5);
const LOGIN_TAKES: Duration = Duration::from_millis(30);
/// The pauses of `probe.rs` and `liveness.rs`.
const GAP: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(5);
const REFUSED: Duration = Duration::from_secs(10);
const STOPPED: Duration = Duration::from_millis(50);
const STOPPED_LONG: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);
const STOPS_OR_STARTS: Duration = Duration::from_millis(200);
const LASTING: Duration = Duration::from_secs(10);
const BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// One of the two tasks of an instance that log in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Task {
    Probe,
    Liveness,
}

/// What the agent does next by itself. It waits while the process is frozen.
#[derive(Clone, Debug)]
pub enum Step {
    /// Begins to log in.
    Login(Task, usize),
    /// Goes on with a login that hangs.
    Hangs(Task, usize, Time),
    Query(usize),
    QueryHangs(usize, Time),
    Arrives(Task, usize, Box<Observation>),
    Look,
    Tick,
}

/// How far a login or a query has come.
pub enum Progress {
    Ended(Result<RoleFacts, Fault>),
    /// It fails when this limit has passed since it began.
    Hangs(Fault, Duration),
}

pub struct Agent {
    pub health: Health,
    pub planner: Planner,
    ledger: Ledger,
    budget: Budget,
    pub servers: Vec<ServerConfig>,
    pub fleet: Fleet,
    started: Time,
    /// When the process went on after it was frozen.
    pub thawed: Time,
    pub frozen: bool,
    pub probes: Vec<Probe>,
    pub liveness: Vec<Liveness>,
    pub tick_at: Option<Time>,
    /// Since when each cluster of an Envoy has no usable endpoint.
    pub unusable_since: [Option<Time>; 2],
    timelines: bool,
    random: Random,
}

pub struct Probe {
    interval: Duration,
    failed: bool,
    backoff: Duration,
    /// When it runs next; `None` while a login is under way.
    pub at: Option<Time>,
    ended: Time,
}

#[derive(Default)]
pub struct Liveness {
    /// The server's epoch, and since when the connection lasts.
    pub session: Option<(u32, Time)>,
    /// The server's epoch when the last login began.
    pub epoch: u32,
    backoff: Duration,
    refused_since: Option<Time>,
    /// It waits for another login to work.
    auth_ill: bool,
    /// When it logs in or asks next; `None` while a login or a query is under way.
    pub at: Option<Time>,
}

/// What an earlier agent left behind.
#[derive(Clone, Debug, Default)]
pub struct Left {
    pub remembered: Vec<Remembered>,
    pub downs: Vec<Down>,
    pub drains: BTreeSet<ServerId>,
}

pub fn instance(index: usize) -> InstanceId {
    InstanceId::new("orders", ["a", "b", "c"][index])
}

pub fn server(role: Role, index: usize) -> ServerId {
    ServerId::new(ProxyIndex(0), ["write", "read"][backend(role)], ["a", "b", "c"][index])
}

/// The role of a server's backend, and its index.
pub fn place(id: &ServerId) -> (Role, usize) {
    let role = if &*id.backend == "write" { Role::Writer } else { Role::Reader };
    (role, ["a", "b", "c"].iter().position(|name| *name == &*id.server).expect("a known name"))
}

impl Agent {
    pub fn start(script: &Script, left: &Left, now: Time, seed: u64) -> Self {
        let rules = HealthRules { probe_interval: script.probe_interval, ..HealthRules::default() };
        let all = || 0..script.servers;
        let instances = all().map(|index| (instance(index), rules.clone())).collect();
        let servers: Vec<ServerConfig> = ROLES
            .into_iter()
            .flat_map(|role| all().map(move |index| (role, index)))
            .map(|(role, index)| ServerConfig {
                id: server(role, index),
                instance: instance(index),
                wanted: if role == Role::Writer { WantedRole::Writer } else { WantedRole::Reader },
                commandable: script.proxy != ProxyKind::Envoy,
            })
            .collect();
        let config = FleetConfig { instances, servers: servers.clone(), routing: Routing::Act };
        let mut health = Health::new(config, &left.remembered);
        health.observe_left_down(left.downs.iter().map(|down| down.server.clone()), now);
        let policy = Policy::default();
        let mut planner = Planner::new(policy.clone(), &servers);
        for server in &left.drains {
            planner.adopt(server, now);
        }
        let probe = |_| Probe {
            interval: script.probe_interval,
            failed: false,
            backoff: AGAIN.min(script.probe_interval),
            at: None,
            ended: now,
        };
        Self {
            health,
            planner,
            ledger: Ledger::new(&servers),
            budget: Budget::new(policy.login_budget),
            servers,
            fleet: Fleet::empty(now),
            started: now,
            thawed: now,
            frozen: false,
            probes: all().map(probe).collect(),
            liveness: all().map(|_| Liveness { backoff: BACKOFF[0], ..Liveness::default() }).collect(),
            tick_at: None,
            unusable_since: [None; 2],
            timelines: script.timelines,
            random: Random::new(seed),
        }
    }

    /// Decides. The commands are the planner's.
    pub fn tick(&mut self, now: Time) -> Plan {
        self.health.observe_admissions(self.planner.drains().admissions());
        self.fleet = self.health.fleet(now);
        self.planner.plan(now, &self.ledger, &self.fleet, &self.budget)
    }

    pub fn starting(&self, now: Time) -> bool {
        now.since(self.started) < STARTING
    }

    /// Whether its answers may repeat a `down`.
    pub fn is_fresh(&self, now: Time) -> bool {
        Freshness::of(now.since(self.fleet.at)) == Freshness::Fresh
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        wait.mul_f64(0.9)
            + wait.mul_f64(f64::from(u8::try_from(self.random.below(200)).expect("small")) / 1_000.0)
    }

    /// What a login meets now.
    pub fn login(&self, world: &World, paths: &[Path], no_token: bool, index: usize) -> Progress {
        use Condition as C;
        let fault = |phase, kind| Progress::Ended(Err(Fault::new(phase, kind, "simulated")));
        let hangs = |phase, seconds| {
            Progress::Hangs(Fault::new(phase, FaultKind::TimedOut, "simulated"), Duration::from_secs(seconds))
        };
        let server = &world.servers[index];
        if no_token {
            return fault(Phase::Login, FaultKind::NoToken);
        }
        match paths[index] {
            Path::Refused => return fault(Phase::Tcp, FaultKind::ConnectionRefused),
            Path::Silent => return hangs(Phase::Tcp, 2),
            Path::Open => {}
        }
        match server.condition {
            C::Drops => hangs(Phase::Tcp, 2),
            C::Refuses => fault(Phase::Tcp, FaultKind::ConnectionRefused),
            C::Frozen => hangs(Phase::Tls, 3),
            C::LoginsHang => hangs(Phase::Login, 8),
            C::TurnsAway => fault(Phase::Login, FaultKind::StartingUp),
            C::Full => fault(Phase::Login, FaultKind::TooManyConnections),
            C::Runs if matches!(server.refuses, Refuses::Agent | Refuses::All) => {
                fault(Phase::Login, FaultKind::LoginRefused)
            }
            C::Runs => Progress::Ended(Ok(self.facts(world, index))),
        }
    }

    /// What a query on the kept connection meets now.
    pub fn query(&self, world: &World, paths: &[Path], index: usize) -> Progress {
        let server = &world.servers[index];
        let epoch = self.liveness[index].session.map(|(epoch, _)| epoch);
        if epoch != Some(server.epoch) || server.condition == Condition::Refuses {
            let fault = Fault::new(Phase::Query, FaultKind::Disconnected, "simulated");
            return Progress::Ended(Err(if server.said_so { fault.with_code("57P01") } else { fault }));
        }
        if paths[index] == Path::Silent || matches!(server.condition, Condition::Drops | Condition::Frozen) {
            let fault = Fault::new(Phase::Query, FaultKind::TimedOut, "simulated");
            return Progress::Hangs(fault, Duration::from_secs(2));
        }
        Progress::Ended(Ok(self.facts(world, index)))
    }

    fn facts(&self, world: &World, index: usize) -> RoleFacts {
        let server = &world.servers[index];
        RoleFacts {
            in_recovery: !server.claims,
            read_only: false,
            follows_source: false,
            timeline: self.timelines.then_some(server.timeline),
            lag: None,
            agents: 1,
        }
    }

    /// Folds the end of a login or query; what the task does next, and after which pause.
    pub fn ended(
        &mut self,
        now: Time,
        task: Task,
        index: usize,
        observation: &Observation,
    ) -> Vec<(Duration, Step)> {
        // A time limit that passed while the process was frozen is its own delay.
        let timed_out = observation.result.as_ref().is_err_and(|fault| fault.kind == FaultKind::TimedOut);
        if !(timed_out && observation.at < self.thawed) {
            self.health.observe(observation);
        }
        match task {
            Task::Probe => self.probed(now, index, observation.result.is_err()),
            Task::Liveness if observation.login => {
                vec![self.liveness_login(now, index, observation)]
            }
            Task::Liveness => self.queried(now, index, observation.result.is_err()),
        }
    }

    fn probed(&mut self, now: Time, index: usize, failed: bool) -> Vec<(Duration, Step)> {
        let probe = &mut self.probes[index];
        let before = std::mem::replace(&mut probe.failed, failed);
        let (first, interval) = (AGAIN.min(probe.interval), probe.interval);
        let wait = match (failed, before) {
            (true, _) => {
                let wait = probe.backoff;
                probe.backoff = (wait * 2).min(interval);
                wait
            }
            (false, true) => first,
            (false, false) => interval,
        };
        if !failed {
            probe.backoff = first;
        }
        let wait = self.jittered(wait).max(GAP);
        let probe = &mut self.probes[index];
        (probe.at, probe.ended) = (Some(now + wait), now);
        let mut steps = vec![(wait, Step::Login(Task::Probe, index))];
        if failed != before {
            steps.extend(self.probe_now(now));
        }
        steps
    }

    /// All tasks that wait for the next login log in now.
    fn probe_now(&mut self, now: Time) -> Vec<(Duration, Step)> {
        let mut steps = Vec::new();
        for index in 0..self.probes.len() {
            steps.extend(self.probe(index, now));
            if std::mem::take(&mut self.liveness[index].auth_ill) {
                steps.push(self.next(Duration::ZERO, now, Step::Login(Task::Liveness, index)));
            }
        }
        steps
    }

    /// A probe on demand, unless one is under way or has just ended.
    pub fn probe(&mut self, index: usize, now: Time) -> Option<(Duration, Step)> {
        let probe = &mut self.probes[index];
        let waits = probe.at.is_some_and(|at| at > now) && now.since(probe.ended) >= GAP;
        waits.then(|| {
            probe.at = Some(now);
            (Duration::ZERO, Step::Login(Task::Probe, index))
        })
    }

    fn liveness_login(&mut self, now: Time, index: usize, observation: &Observation) -> (Duration, Step) {
        let again = Step::Login(Task::Liveness, index);
        let Err(fault) = &observation.result else {
            let liveness = &mut self.liveness[index];
            liveness.session = Some((liveness.epoch, now));
            liveness.refused_since = None;
            return self.next(self.health.cadence(&instance(index)), now, Step::Query(index));
        };
        let liveness = &mut self.liveness[index];
        let refused = fault.kind == FaultKind::ConnectionRefused;
        liveness.refused_since = refused.then(|| liveness.refused_since.unwrap_or(now));
        liveness.auth_ill = fault.evidence() == Evidence::AuthIll;
        let wait = match liveness.refused_since {
            _ if liveness.auth_ill => REFUSED,
            Some(since) if now.since(since) < LONG => STOPPED,
            Some(_) => STOPPED_LONG,
            None if fault.evidence() == Evidence::Down => STOPS_OR_STARTS,
            None => self.back_off(index),
        };
        let wait = self.jittered(wait);
        self.next(wait, now, again)
    }

    /// The next step of the liveness task of an instance.
    fn next(&mut self, wait: Duration, now: Time, step: Step) -> (Duration, Step) {
        if let Step::Login(_, index) | Step::Query(index) = step {
            self.liveness[index].at = Some(now + wait);
        }
        (wait, step)
    }

    fn back_off(&mut self, index: usize) -> Duration {
        let wait = self.liveness[index].backoff;
        self.liveness[index].backoff = (wait * 2).min(BACKOFF[1]);
        wait
    }

    fn queried(&mut self, now: Time, index: usize, failed: bool) -> Vec<(Duration, Step)> {
        if !failed {
            return vec![self.next(self.health.cadence(&instance(index)), now, Step::Query(index))];
        }
        let since = self.liveness[index].session.take().map_or(now, |(_, since)| since);
        let wait = if now.since(since) >= LASTING {
            self.liveness[index].backoff = BACKOFF[0];
            Duration::ZERO
        } else {
            self.back_off(index)
        };
        let mut steps = self.probe_now(now);
        let wait = self.jittered(wait);
        steps.push(self.next(wait, now, Step::Login(Task::Liveness, index)));
        steps
    }

    /// Whether the step's time has come: a step on demand replaces the one that was planned.
    pub fn is_due(&mut self, step: &Step, now: Time) -> bool {
        let at = match *step {
            Step::Login(Task::Probe, index) => &mut self.probes[index].at,
            Step::Login(Task::Liveness, index) | Step::Query(index) => &mut self.liveness[index].at,
            _ => return true,
        };
        let due = at.is_some_and(|at| at <= now);
        if due {
            *at = None;
        }
        due
    }

    /// The server ended the sessions: the agent asks at once.
    pub fn interrupted(&mut self, index: usize, now: Time) -> Option<(Duration, Step)> {
        let waits = self.liveness[index].session.is_some() && self.liveness[index].at.is_some();
        waits.then(|| self.next(Duration::ZERO, now, Step::Query(index)))
    }

    /// What the next agent finds.
    pub fn leaves(&self, drains: &BTreeSet<ServerId>) -> Left {
        Left { remembered: self.health.remember(), downs: self.health.downs(), drains: drains.clone() }
    }

    pub fn login_takes(result: &Result<RoleFacts, Fault>) -> Duration {
        match result {
            Err(fault) if fault.phase <= Phase::Tcp => Duration::from_millis(1),
            _ => LOGIN_TAKES,
        }
    }

    /// The verdicts of the servers of one backend.
    pub fn verdicts(&self) -> &BTreeMap<ServerId, agent_core::health::Verdict> {
        &self.fleet.servers
    }
}

/// Whether a command ends the record of a drain.
pub fn forgets(command: &Command) -> Option<&ServerId> {
    match command {
        Command::Forget { server } => Some(server),
        _ => None,
    }
}
