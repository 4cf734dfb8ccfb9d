//! One run: the queue of events, the clients, the proxy's agent checks, the way of
//! each step between agent and world, and the checks against the truth.
//!
//! - `clients`: what they do. `steps`: the agent's. `effects`: what becomes of its commands.

mod clients;
mod effects;
mod steps;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use agent_core::{
    FaultKind, ServerId, Time,
    desired::{AgentHealth, agent_check},
    health::{Remembered, State},
    plan::{
        Close, Command, DrainSent, HoldReason, Mode, Outcome, Policy, Purpose, Retire, Retired, limit_of,
    },
    session::{BackendKey, ProxySessionKey},
};

use crate::{
    agent::{Agent, Input, Reach, Step, own},
    haproxy::Hand,
    trouble::{self, Trouble},
    world::{Condition, DbSession, Doing, INSTANCES, Kind, Refuses, World, instance_id},
};

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connects: u64,
    pub closes: u64,
    pub refused_closes: u64,
    pub drains: u64,
    pub own_logins: u64,
    pub troubles: u64,
    pub plans: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.connects += other.connects;
        self.closes += other.closes;
        self.refused_closes += other.refused_closes;
        self.drains += other.drains;
        self.own_logins += other.own_logins;
        self.troubles += other.troubles;
        self.plans += other.plans;
    }
}

enum Event {
    Connect(usize),
    Begin(usize, u64),
    End(usize, u64),
    AgentCheck(usize),
    Trouble(Trouble),
    NextTrouble,
    Agent(u32, Step),
    Reach(u32, Reach),
}

const SECOND: Duration = Duration::from_secs(1);
const CHECK: Duration = Duration::from_secs(2);

/// After trouble, this long is given before anything is asked of the agent.
const RECOVERY: Duration = Duration::from_secs(20);

/// After an operator's command, the proxy's flags are seen and each of its checks is answered anew.
const NOTICED: Duration = Duration::from_secs(6);

/// What it may take to be seen, decided and done, beyond the poll itself.
const SLACK: Duration = Duration::from_millis(700);

pub struct Run {
    world: World,
    policy: Policy,
    agent: Option<Agent>,
    /// Tells this agent's steps from those of one that was killed.
    incarnation: u32,
    frozen: Option<Time>,
    waiting: VecDeque<Step>,
    socket_dead: bool,
    aws_away: Option<Time>,
    lossy: bool,
    disk: (Vec<Remembered>, Vec<ServerId>),
    queue: BTreeMap<(Time, u64), Event>,
    number: u64,
    troubled: bool,
    counts: Counts,
    /// When closes and own logins reached each instance.
    load: Vec<Vec<Time>>,
}

impl Run {
    pub fn new(seed: u64, clients: usize, policy: Policy) -> Self {
        let world = World::new(seed, clients);
        let mut run = Self {
            world,
            policy,
            agent: None,
            incarnation: 0,
            frozen: None,
            waiting: VecDeque::new(),
            socket_dead: false,
            aws_away: None,
            lossy: false,
            disk: (Vec::new(), Vec::new()),
            queue: BTreeMap::new(),
            number: 0,
            troubled: true,
            counts: Counts::default(),
            load: vec![Vec::new(); INSTANCES.len()],
        };
        run.start_agent();
        for client in 0..clients {
            let wait = run.world.random.millis(0, 20_000);
            run.after(wait, Event::Connect(client));
        }
        for server in 0..run.world.servers.len() {
            let wait = run.world.random.millis(0, 2_000);
            run.after(wait, Event::AgentCheck(server));
        }
        run.after(Duration::from_secs(30), Event::NextTrouble);
        run
    }

    /// Nothing else goes wrong: persons put these servers into maintenance, and take them back.
    pub fn only_persons(&mut self, servers: &[usize], from: Duration, until: Duration) {
        self.troubled = false;
        for server in servers {
            self.after(from, Event::Trouble(Trouble::Person(*server, Hand::Maint)));
            self.after(until, Event::Trouble(Trouble::Person(*server, Hand::Ready)));
        }
    }

    pub fn broken(&self) -> &[String] {
        &self.world.admin.broken
    }

    fn break_rule(&mut self, what: &str) {
        let at = self.world.now.since(Time::AGENT_START).as_secs_f64();
        self.world.admin.broken.push(format!("{at:.3}: {what}"));
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.number += 1;
        self.queue.insert((self.world.now + wait, self.number), event);
    }

    fn agent_after(&mut self, wait: Duration, step: Step) {
        self.after(wait, Event::Agent(self.incarnation, step));
    }

    /// On its way to a database or the proxy.
    fn send(&mut self, reach: Reach) {
        let wait = self.latency();
        self.after(wait, Event::Reach(self.incarnation, reach));
    }

    fn latency(&mut self) -> Duration {
        if self.world.random.chance(1) {
            self.world.random.millis(100, 700)
        } else {
            self.world.random.millis(1, 8)
        }
    }

    pub fn for_a_while(&mut self, time: Duration) {
        let end = self.world.now + time;
        self.until(end);
    }

    fn until(&mut self, end: Time) {
        while let Some((&(at, number), _)) = self.queue.first_key_value() {
            if at > end || self.broken().len() > 20 {
                break;
            }
            let event = self.queue.remove(&(at, number)).expect("the first event");
            self.world.now = at;
            let well = self.world.well() && self.aws_away.is_none() && self.runs();
            if !well || self.socket_dead || self.lossy {
                (self.world.trouble, self.world.shaken) = (at, at);
            }
            if self.world.handled() {
                self.world.trouble = at;
            }
            self.happens(event);
        }
        self.world.now = end;
    }

    /// All trouble ends, the agent works on for a while, and then lets go.
    pub fn end(&mut self) -> Counts {
        self.troubled = false;
        self.for_a_while(Duration::from_secs(50));
        for trouble in
            [Trouble::Freeze(false), Trouble::Socket(false), Trouble::Aws(false), Trouble::Lossy(false)]
        {
            self.strikes(&trouble);
        }
        self.strikes(&Trouble::RefusesAll(Refuses::Nobody));
        for index in 0..INSTANCES.len() {
            self.strikes(&Trouble::Condition(index, Condition::Well));
        }
        if self.agent.is_none() {
            self.start_agent();
        }
        self.for_a_while(Duration::from_secs(60));
        for index in 0..self.world.clients.len() {
            self.overdue(index);
        }
        if let Some(agent) = &mut self.agent {
            agent.planner.pause();
        }
        self.for_a_while(Duration::from_secs(15));
        for (server, truth) in self.world.admin.truth.clone() {
            if truth.flags.drain && !truth.persons {
                self.break_rule(&format!("a drain of the agent's is left on {server}"));
            }
        }
        if !self.disk.1.is_empty() {
            self.break_rule(&format!("records are left: {:?}", self.disk.1));
        }
        self.check_load();
        self.counts.connects = self.world.connects;
        self.counts.clone()
    }

    /// No window of one second held more closes and own logins than the budget.
    fn check_load(&mut self) {
        let budget = self.policy.login_budget as usize;
        for (mut times, name) in std::mem::take(&mut self.load).into_iter().zip(INSTANCES) {
            times.sort();
            for (first, begin) in times.iter().enumerate() {
                let within = times[first..].iter().take_while(|at| at.since(*begin) < SECOND).count();
                if within > budget {
                    self.break_rule(&format!("{within} in a second on {name}, of {budget}"));
                    return;
                }
            }
        }
    }

    fn runs(&self) -> bool {
        self.agent.is_some() && self.frozen.is_none()
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Connect(client) => self.connect(client),
            Event::Begin(client, life) => self.begin(client, life),
            Event::End(client, life) => self.end_of_transaction(client, life),
            Event::AgentCheck(server) => self.agent_check(server),
            Event::Trouble(trouble) => self.strikes(&trouble),
            Event::NextTrouble => {
                if self.troubled {
                    for (wait, trouble) in trouble::next(&mut self.world.random) {
                        self.after(wait, Event::Trouble(trouble));
                    }
                    let wait = self.world.random.seconds(2, 45);
                    self.after(wait, Event::NextTrouble);
                }
            }
            Event::Agent(incarnation, step) => {
                if incarnation != self.incarnation || self.agent.is_none() {
                } else if self.frozen.is_some() {
                    self.waiting.push_back(step);
                } else {
                    self.step(step);
                }
            }
            Event::Reach(incarnation, reach) => self.reaches(incarnation, reach),
        }
    }

    // === the proxy ===

    fn agent_check(&mut self, index: usize) {
        self.after(CHECK, Event::AgentCheck(index));
        let now = self.world.now;
        let server = self.world.servers[index].id.clone();
        // Nothing answers: nothing changes.
        let Some(agent) = self.agent.as_ref().filter(|_| self.frozen.is_none()) else { return };
        let admin = agent.planner.drains().word(&server, now);
        let desired = agent_check(agent.fleet.servers.get(&server), admin);
        if let Some(health) = desired.health {
            self.world.agent_down.insert(server.clone(), matches!(health, AgentHealth::Down(_)));
        }
        self.world.admin.answer(&server, desired.admin);
        if let Some(word) = desired.admin {
            self.agent_after(Duration::ZERO, Step::Arrives(Input::Delivered(server, word)));
        }
    }

    // === trouble ===

    fn strikes(&mut self, trouble: &Trouble) {
        self.counts.troubles += 1;
        self.world.trouble = self.world.now;
        match trouble {
            Trouble::Person(..) => self.world.hand = self.world.now,
            _ => self.world.shaken = self.world.now,
        }
        match *trouble {
            Trouble::Freeze(true) => self.frozen = self.agent.as_ref().map(|_| self.world.now),
            Trouble::Freeze(false) => {
                self.frozen = None;
                for step in std::mem::take(&mut self.waiting) {
                    self.agent_after(Duration::ZERO, step);
                }
            }
            Trouble::Kill => {
                if let Some(agent) = self.agent.take() {
                    self.disk.0 = agent.health.remember();
                }
                self.incarnation += 1;
                self.frozen = None;
                self.waiting.clear();
            }
            Trouble::Start => {
                if self.agent.is_none() {
                    self.start_agent();
                }
            }
            Trouble::Socket(dead) => self.socket_dead = dead,
            Trouble::Aws(away) => self.aws_away = away.then_some(self.world.now),
            Trouble::Refuses(index, whom) => self.world.instances[index].refuses = whom,
            Trouble::RefusesAll(whom) => {
                self.world.instances.iter_mut().for_each(|instance| instance.refuses = whom);
            }
            Trouble::Condition(index, condition) => {
                let instance = &mut self.world.instances[index];
                if condition == Condition::Well || instance.condition == Condition::Well {
                    instance.condition = condition;
                }
            }
            Trouble::Crash => {
                let writer = self.world.instances.iter().position(|instance| instance.writer);
                if let Some(writer) = writer {
                    self.world.crash(writer);
                }
            }
            Trouble::Promote(index) => {
                self.switch(index);
                for index in 0..INSTANCES.len() {
                    if self.world.instances[index].condition == Condition::Refusing {
                        self.world.instances[index].condition = Condition::Well;
                    }
                }
            }
            Trouble::Switch(index) => self.switch(index),
            Trouble::Lossy(lossy) => self.lossy = lossy,
            Trouble::Person(index, hand) => {
                let server = self.world.servers[index].id.clone();
                self.world.admin.person(&server, hand);
            }
            Trouble::Reload => {
                for truth in self.world.admin.truth.values_mut() {
                    truth.flags = agent_core::plan::AdminFlags::default();
                    truth.persons = false;
                }
                self.world.agent_down.values_mut().for_each(|down| *down = false);
            }
        }
    }

    fn switch(&mut self, to: usize) {
        let timeline = self.world.instances.iter().map(|instance| instance.timeline).max().unwrap_or(1);
        for (index, instance) in self.world.instances.iter_mut().enumerate() {
            instance.writer = index == to;
        }
        self.world.instances[to].timeline = timeline + 1;
    }
}
