//! The agent's tasks around the real decisions: probes, polls, sweeps and
//! executors, with the delays, losses and overtakings that real ones have.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use agent_core::{
    Fault, FaultKind, InstanceId, Phase, ProxyIndex, ServerId, Time,
    health::{Fleet, FleetConfig, Health, HealthRules, Observation, Remembered, RoleFacts},
    peers::{Look, Marks},
    plan::{
        AdminFlags, AdminWord, Budget, Command, HoldReason, Outcome, Plan, Planner, Policy, Retire, Retired,
        Subject, Ticket,
    },
    session::{ActivityRow, BackendKey, Ledger, ProxySession, Seen},
};

use crate::world::{INSTANCES, World, instance_id};

/// What an agent does next by itself. Waits while it is frozen.
#[derive(Debug)]
pub enum Step {
    Probe(usize),
    Liveness(usize),
    Table(usize),
    Flags,
    Sweep,
    Credentials,
    Tick,
    Arrives(Input),
}

/// What reaches a database or the proxy, frozen agent or not.
#[derive(Debug)]
pub enum Reach {
    Login(usize, Ticket, bool),
    Role(usize),
    Rows(usize, Time, Option<Vec<BackendKey>>),
    Flags(Time),
    Sweep(Time),
    Close(Box<Retire>, Ticket),
    Drain(ServerId),
    Undrain(ServerId),
}

/// An input of an agent.
#[derive(Debug)]
pub enum Input {
    Health {
        index: usize,
        login: bool,
        ticket: Option<Ticket>,
        result: Result<RoleFacts, Fault>,
        probe: bool,
    },
    Rows {
        index: usize,
        at: Time,
        only: Option<Vec<BackendKey>>,
        rows: Option<Vec<ActivityRow>>,
    },
    Flags {
        at: Time,
        flags: Option<BTreeMap<ServerId, AdminFlags>>,
    },
    Swept {
        at: Time,
        sessions: Option<Vec<ProxySession>>,
    },
    Closed {
        retire: Box<Retire>,
        ticket: Ticket,
        retired: Retired,
    },
    Outcome(Outcome),
    Delivered(ServerId, AdminWord),
}

pub struct Agent {
    pub health: Health,
    pub ledger: Ledger,
    pub planner: Planner,
    pub budget: Budget,
    pub fleet: Fleet,
    pub plan: Option<Plan>,
    /// Why sessions were held by the last plan.
    pub held: HashMap<(InstanceId, BackendKey), HoldReason>,
    pub queues: Vec<VecDeque<Retire>>,
    /// When each instance is probed next; never while one is under way.
    pub probe_at: Vec<Option<Time>>,
    pub probed: Vec<Time>,
    pub all_at: Vec<Time>,
    pub focus_at: Vec<Time>,
    pub connected: Vec<bool>,
    pub backoff: Vec<Duration>,
    pub swept: Option<Time>,
    pub sweeping: bool,
    pub tick_at: Option<Time>,
    /// Whether the agent has seen its logins refused there.
    pub knows_refused: Vec<bool>,
}

impl Agent {
    pub fn start(world: &World, policy: &Policy, memory: &[Remembered], records: &[ServerId]) -> Self {
        let rules = HealthRules { probe_interval: Duration::from_secs(10), ..HealthRules::default() };
        let instances = (0..INSTANCES.len()).map(|index| (instance_id(index), rules.clone())).collect();
        let config = FleetConfig { instances, servers: world.servers.clone(), ..FleetConfig::default() };
        let mut health = Health::new(config, memory);
        let mut planner = Planner::new(policy.clone(), &world.servers);
        for server in records {
            planner.adopt(server, world.now);
        }
        Self {
            fleet: health.fleet(world.now),
            health,
            ledger: Ledger::new(&world.servers),
            planner,
            budget: Budget::new(policy.login_budget),
            plan: None,
            held: HashMap::new(),
            queues: INSTANCES.iter().map(|_| VecDeque::new()).collect(),
            probe_at: vec![Some(world.now); INSTANCES.len()],
            probed: vec![Time::AGENT_START; INSTANCES.len()],
            all_at: vec![world.now; INSTANCES.len()],
            focus_at: vec![world.now; INSTANCES.len()],
            connected: vec![false; INSTANCES.len()],
            backoff: vec![Duration::from_millis(200); INSTANCES.len()],
            swept: None,
            sweeping: false,
            tick_at: None,
            knows_refused: vec![false; INSTANCES.len()],
        }
    }

    /// Makes the plan of this moment.
    pub fn tick(&mut self, now: Time) -> Vec<Command> {
        self.health.observe_admissions(self.planner.drains().admissions());
        self.fleet = self.health.fleet(now);
        let mut plan = self.planner.plan(now, &self.ledger, &self.fleet, &self.budget);
        // The locks at the instances are read in no time, and no other agent has any.
        let mut commands = Vec::new();
        for _ in 0..3 {
            for id in (0..INSTANCES.len()).map(instance_id) {
                let own = Marks { drain: plan.marks.contains(&id), ..Marks::default() };
                self.planner.observe_peers(&id, now, now, Ok(Look { own, ..Look::default() }));
            }
            if plan.meet.is_empty() {
                break;
            }
            commands.append(&mut plan.commands);
            plan = self.planner.plan(now, &self.ledger, &self.fleet, &self.budget);
        }
        commands.append(&mut plan.commands);
        plan.commands = commands;
        self.held = plan
            .holds
            .iter()
            .filter_map(|hold| match &hold.subject {
                Subject::Session { instance, key, .. } => Some(((instance.clone(), *key), hold.reason)),
                Subject::Server(_) => None,
            })
            .collect();
        let commands = plan.commands.clone();
        self.plan = Some(plan);
        commands
    }

    /// Takes in an input. Commands come back from the admin flags alone.
    pub fn take_in(&mut self, now: Time, input: Input) -> Vec<Command> {
        let mut commands = Vec::new();
        match input {
            Input::Health { index, login, ticket, result, .. } => {
                if let Some(ticket) = ticket {
                    self.budget.finish(ticket, now);
                }
                if login {
                    let refused = matches!(&result, Err(fault) if fault.kind == FaultKind::LoginRefused);
                    self.knows_refused[index] = refused || (self.knows_refused[index] && result.is_err());
                }
                let observation = Observation { instance: instance_id(index), at: now, login, result };
                self.health.observe(&observation);
            }
            Input::Rows { index, at, only, rows } => {
                if let Some(rows) = rows {
                    let seen = only.as_deref().map_or(Seen::All, Seen::Only);
                    self.ledger.observe_activity(&instance_id(index), at, seen, rows);
                }
            }
            Input::Flags { at, flags } => {
                for (server, flags) in flags.into_iter().flatten() {
                    self.ledger.proxy_alive(ProxyIndex(0), at);
                    commands.extend(self.planner.observe_admin(&server, at, flags));
                }
            }
            Input::Swept { at, sessions } => {
                self.sweeping = false;
                if let Some(sessions) = sessions {
                    self.ledger.observe_proxy(ProxyIndex(0), at, sessions);
                }
            }
            Input::Closed { retire, ticket, retired } => {
                match retired {
                    Retired::Closed | Retired::Failed => self.budget.finish(ticket, now),
                    _ => self.budget.cancel(ticket),
                }
                self.answer(now, &retire, retired);
            }
            Input::Outcome(outcome) => self.planner.outcome(now, &outcome),
            Input::Delivered(server, word) => self.planner.delivered(&server, word),
        }
        commands
    }

    pub fn answer(&mut self, now: Time, retire: &Retire, retired: Retired) {
        let (instance, key) = (retire.instance.clone(), retire.key);
        self.planner.outcome(now, &Outcome::Retire { instance, key, retired });
    }

    pub fn closing(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.closing)
    }

    pub fn focus(&self, index: usize) -> Vec<BackendKey> {
        let plan = self.plan.as_ref();
        plan.and_then(|plan| plan.focus.get(&instance_id(index)).cloned()).unwrap_or_default()
    }

    pub fn wants_poll(&self, index: usize) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.poll.contains(&instance_id(index)))
    }

    /// Whether a probe is due, or asked for and the last one a second ago.
    pub fn wants_probe(&self, index: usize, now: Time) -> bool {
        let asked = self.plan.as_ref().is_some_and(|plan| plan.probe.contains(&instance_id(index)));
        let rested = now.since(self.probed[index]) >= Duration::from_secs(1);
        self.probe_at[index].is_some_and(|at| now >= at || asked && rested)
    }

    pub fn wants_sweep(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.sweep.contains(&ProxyIndex(0)))
    }
}

/// A fault of the agent's own side.
pub fn own(kind: FaultKind) -> Fault {
    Fault::new(Phase::Login, kind, "simulated")
}
