//! One arm of a play: a proxy, the clients, and the agent if there is one.

mod clients;
mod steps;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    time::Duration,
};

use agent_core::{
    ServerId, Time,
    desired::{EndpointHealth, Member, agent_check, endpoints},
    health::Role,
};

use crate::{
    agent::{self, Agent, Left, ROLES, Step, server},
    envoy::{Envoy, WAIT},
    haproxy::{Haproxy, Resolved, backend},
    outcome::{Ended, Outcome},
    proxy::Proxy,
    random::Random,
    script::{ProxyKind, Script, WARM_UP},
    world::{Change, NAMES_FOLLOW, Names, Path, World},
};
use clients::Attempt;

/// New clients a second.
const RATE: u64 = 8;

/// `agent-inter`.
const CHECKS: Duration = Duration::from_secs(1);

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Acting,
    /// The agent is gone when clients come, and the check port keeps its last word.
    Mute,
    /// No agent: RDS's names by DNS.
    Plain,
}

#[derive(Debug)]
enum Event {
    Change(Change),
    /// DNS and the resolvers of the proxies have followed.
    Names(Names),
    Client(usize),
    /// HAProxy asks for a server.
    Check(Role, usize),
    /// A step of the agent that was started as number so many.
    Agent(u32, Step),
    Muted,
}

struct Queued(Reverse<(Time, u64)>, Event);

pub struct Arm<'a> {
    script: &'a Script,
    kind: Kind,
    now: Time,
    end: Time,
    queue: BinaryHeap<Queued>,
    sequence: u64,
    world: World,
    names: Names,
    proxy: Proxy,
    /// Since when the proxy does not run.
    proxy_down: bool,
    /// Changes whenever the proxy's sessions end.
    proxy_epoch: u32,
    attempts: Vec<Attempt>,
    agent: Option<Agent>,
    life: u32,
    left: Left,
    drains: BTreeSet<ServerId>,
    paths: Vec<Path>,
    no_token: bool,
    /// What the agent would do while it is frozen.
    held: Vec<Step>,
    /// What happened, where it is asked for: for the report of a seed that fails.
    journal: Vec<String>,
    journals: bool,
}

/// What became of each attempt of the script in this arm, with the readers' name on `reader` at first; and, if
/// asked for, what happened.
pub fn play(script: &Script, kind: Kind, reader: usize, journals: bool) -> (Vec<Ended>, Vec<String>) {
    let mut arm = Arm::new(script, kind, reader);
    arm.journals = journals;
    arm.run();
    let ended = |attempt: &Attempt| Ended {
        at: attempt.arrives.since(Time::AGENT_START),
        role: attempt.role,
        outcome: attempt.outcome.unwrap_or(Outcome::Failed),
    };
    (arm.attempts.iter().map(ended).collect(), arm.journal)
}

impl<'a> Arm<'a> {
    fn new(script: &'a Script, kind: Kind, reader: usize) -> Self {
        let world = World::new(script.servers);
        let names = Names { cluster: 0, readers: (1..script.servers).collect() };
        let by_agent = kind != Kind::Plain;
        let proxy = match script.proxy {
            ProxyKind::Haproxy { room } if by_agent => Proxy::Haproxy(Haproxy::new(script.servers, room)),
            ProxyKind::Haproxy { .. } => {
                Proxy::Haproxy(Haproxy::by_names(Resolved { writer: names.cluster, reader }))
            }
            ProxyKind::Envoy => Proxy::Envoy(Envoy::new(names.clone(), reader)),
        };
        let now = Time::AGENT_START;
        let mut arm = Self {
            script,
            kind,
            now,
            end: now + script.length,
            queue: BinaryHeap::new(),
            sequence: 0,
            paths: vec![Path::Open; script.servers],
            world,
            names,
            proxy,
            proxy_down: false,
            proxy_epoch: 0,
            attempts: clients::schedule(script.seed, now + WARM_UP, script.length.saturating_sub(WARM_UP)),
            agent: None,
            life: 0,
            left: Left::default(),
            drains: BTreeSet::new(),
            no_token: false,
            held: Vec::new(),
            journal: Vec::new(),
            journals: false,
        };
        if by_agent {
            arm.start_agent();
        }
        for (at, change) in script.changes() {
            arm.at(now + at, Event::Change(change));
        }
        if kind == Kind::Mute {
            arm.at(now + WARM_UP, Event::Muted);
        }
        for index in 0..arm.attempts.len() {
            let at = arm.attempts[index].arrives;
            arm.at(at, Event::Client(index));
        }
        let mut random = Random::new(script.seed);
        if by_agent && script.proxy != ProxyKind::Envoy {
            for (role, index) in
                ROLES.into_iter().flat_map(|role| (0..script.servers).map(move |i| (role, i)))
            {
                arm.at(now + random.millis(0, 1_000), Event::Check(role, index));
            }
        }
        arm
    }

    fn at(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.queue.push(Queued(Reverse((at, self.sequence)), event));
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    fn run(&mut self) {
        while let Some(Queued(Reverse((at, _)), event)) = self.queue.pop() {
            // The last clients end as the world is at the end.
            if at > self.end + Duration::from_secs(25) {
                break;
            }
            self.now = at;
            match event {
                Event::Change(change) => self.change(change),
                Event::Names(names) => {
                    self.proxy.resolve(&names);
                    self.names = names;
                }
                Event::Client(index) => self.client(index),
                Event::Check(role, index) => self.check(role, index),
                Event::Agent(life, step) => self.agent_step(life, step),
                Event::Muted => self.agent = None,
            }
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if !self.journals {
            return;
        }
        let at = self.now.since(Time::AGENT_START).as_secs_f64();
        self.journal.push(format!("{at:>8.3}  {}", what()));
    }

    fn change(&mut self, change: Change) {
        if let Some(names) = self.world.change(change) {
            self.after(NAMES_FOLLOW, Event::Names(names));
        }
        let acts = match self.kind {
            Kind::Acting => true,
            Kind::Mute => self.now < Time::AGENT_START + WARM_UP,
            Kind::Plain => false,
        };
        match change {
            Change::Cut(index, _) => {
                let now = self.now;
                let step = self.agent.as_mut().and_then(|agent| agent.interrupted(index, now));
                self.agent_next(step);
            }
            Change::AgentPath(index, path) => {
                let all = index.map_or(0..self.paths.len(), |index| index..index + 1);
                self.paths[all].fill(path);
            }
            Change::NoToken(away) => self.no_token = away,
            Change::Operator(index, hand) => {
                if let Proxy::Haproxy(haproxy) = &mut self.proxy {
                    haproxy.operator(index, hand);
                }
            }
            Change::Reload => self.load(),
            Change::ProxyDown(down) => {
                self.proxy_down = down;
                self.proxy_epoch += 1;
                self.load();
            }
            Change::AgentKilled if acts => self.end_agent(),
            Change::AgentStopped if acts => self.stop_agent(),
            Change::AgentStarted if acts && self.agent.is_none() => self.start_agent(),
            Change::AgentFrozen(frozen) if acts => self.freeze_agent(frozen),
            _ => return,
        }
        self.note(|| format!("{change}"));
    }

    fn load(&mut self) {
        match &mut self.proxy {
            Proxy::Haproxy(haproxy) => haproxy.load(),
            // It starts by DNS; an agent sends it the endpoints again as soon as it is connected.
            Proxy::Envoy(envoy) => {
                if self.kind != Kind::Plain {
                    *envoy = Envoy::new(self.names.clone(), envoy.reader);
                }
            }
        }
        self.tick_by(self.now);
    }

    /// HAProxy's agent check of one server.
    fn check(&mut self, role: Role, index: usize) {
        self.after(CHECKS, Event::Check(role, index));
        let Some(agent) = self.agent.as_ref().filter(|agent| !agent.frozen && !self.proxy_down) else {
            return;
        };
        let id = server(role, index);
        let verdict = agent.fleet.servers.get(&id).filter(|_| agent.is_fresh(self.now));
        let said = agent_check(verdict, None);
        if let Proxy::Haproxy(haproxy) = &mut self.proxy {
            haproxy.hears(role, index, said.health);
        }
    }

    /// Sends an Envoy its endpoints.
    fn publish(&mut self) {
        let (now, Some(agent)) = (self.now, self.agent.as_mut()) else { return };
        let (Proxy::Envoy(envoy), false) = (&mut self.proxy, self.proxy_down) else { return };
        for role in ROLES {
            let members: Vec<Member<'_>> = agent
                .servers
                .iter()
                .filter(|config| agent::place(&config.id).0 == role)
                .map(|config| Member {
                    server: config,
                    verdict: agent.fleet.servers.get(&config.id),
                    drained: false,
                    resolved: true,
                })
                .collect();
            let Some(health) = endpoints(&members, agent.starting(now)) else {
                agent.unusable_since[backend(role)] = None;
                continue;
            };
            let usable = |health: &EndpointHealth| {
                matches!(health, EndpointHealth::Healthy | EndpointHealth::Degraded)
            };
            let since = &mut agent.unusable_since[backend(role)];
            *since = if health.iter().any(usable) { None } else { Some(since.unwrap_or(now)) };
            let room = since.is_some_and(|since| now.since(since) < WAIT);
            envoy.receive(role, health, room, now);
        }
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
