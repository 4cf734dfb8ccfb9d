//! One run: the queue of events, the clients, the proxy's agent checks, the way of
//! each step between agent and world, and the checks against the truth.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use agent_core::{
    FaultKind, ServerId, Time,
    health::{Remembered, State},
    plan::{Command, HoldReason, How, Mode, Outcome, Policy, Purpose, Retire, Retired, limit_of},
    session::BackendKey,
};

use crate::{
    agent::{Agent, Input, Reach, Step, own},
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
            if !self.world.well() || self.aws_away.is_some() || !self.runs() || self.socket_dead || self.lossy
            {
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

    // === clients ===

    fn connect(&mut self, client: usize) {
        let away = self.aws_away.is_some();
        if self.world.clients[client].gone || self.world.session_of(client).is_some() {
            return;
        }
        // Who cannot sign cannot log in; the socket is closed either way.
        let result = if away { Err(false) } else { self.world.connect(client) };
        match result {
            Ok(()) => {
                let life = self.world.clients[client].life;
                let think = self.think(client);
                self.after(think, Event::Begin(client, life));
            }
            Err(nowhere) => {
                let calm = self.world.now.since(self.world.trouble) > RECOVERY;
                if nowhere && calm {
                    let backend = self.world.clients[client].backend;
                    self.break_rule(&format!("a client of {backend} was refused although all is well"));
                }
                let wait = self.world.random.millis(100, 1_000);
                self.after(wait, Event::Connect(client));
            }
        }
    }

    fn think(&mut self, client: usize) -> Duration {
        let random = &mut self.world.random;
        match self.world.clients[client].kind {
            Kind::Restless => random.millis(1, 50),
            Kind::Sleeper => random.seconds(10, 50),
            Kind::Holder => random.millis(500, 3_000),
            _ if random.chance(80) => random.millis(100, 900),
            _ => random.millis(900, 4_000),
        }
    }

    fn begin(&mut self, client: usize, life: u64) {
        if self.world.clients[client].life != life || self.silent(client) {
            if self.world.clients[client].life == life {
                self.after(SECOND, Event::Begin(client, life));
            }
            return;
        }
        self.overdue(client);
        let Some(session) = self.world.session_of(client) else {
            // It looks at its socket before it begins, as a pool does.
            let wait = self.world.random.millis(1, 20);
            return self.after(wait, Event::Connect(client));
        };
        session.doing = Doing::Transaction;
        let random = &mut self.world.random;
        let lasts = match self.world.clients[client].kind {
            Kind::Holder => random.seconds(3, 60),
            _ => random.millis(2, 40),
        };
        self.after(lasts, Event::End(client, life));
    }

    fn end_of_transaction(&mut self, client: usize, life: u64) {
        if self.world.clients[client].life != life {
            return;
        }
        if self.silent(client) {
            return self.after(SECOND, Event::End(client, life));
        }
        let now = self.world.now;
        match self.world.session_of(client) {
            Some(session) => {
                session.doing = Doing::Idle(now);
                let think = self.think(client);
                self.after(think, Event::Begin(client, life));
            }
            None => self.after(Duration::from_millis(20), Event::Connect(client)),
        }
    }

    fn silent(&mut self, client: usize) -> bool {
        let session = self.world.clients[client].session;
        session.is_some_and(|(index, _)| self.world.instances[index].condition == Condition::Silent)
    }

    /// A session past its limit by more than five seconds, that has just paused
    /// long enough to be closed while all was well, should not be there.
    fn overdue(&mut self, client: usize) {
        let (now, kind) = (self.world.now, self.world.clients[client].kind);
        let acting = self.agent.as_ref().is_some_and(|agent| agent.planner.may_close());
        let calm = now.since(self.world.trouble) > RECOVERY && acting;
        if !calm || kind.left_alone() {
            return;
        }
        let trouble = self.world.trouble;
        let Some(session) = self.world.session_of(client).cloned() else { return };
        let Doing::Idle(since) = session.doing else { return };
        let past = session.begin + limit_of(&self.policy, &session.key);
        let asked = self.policy.quiet_min + Duration::from_millis(100) + SLACK;
        let paused_past = now.since(since.max(past).max(trouble + RECOVERY));
        if now < past + Duration::from_secs(5) || paused_past < asked {
            return;
        }
        let Some((index, _)) = self.world.clients[client].session else { return };
        let id = (instance_id(index), session.key);
        let held = self.agent.as_ref().and_then(|agent| agent.held.get(&id)).copied();
        if !matches!(held, Some(HoldReason::OverBudget | HoldReason::Breaker)) {
            let age = now.since(session.begin);
            let ledger = self.agent.as_ref().map(|agent| &agent.ledger);
            let seen = ledger.and_then(|ledger| {
                let row = ledger.sessions_of(&id.0).find(|row| row.row.key == session.key)?;
                Some((now.since(row.seen), row.row.activity))
            });
            self.break_rule(&format!(
                "{kind:?} of age {age:?} has paused {paused_past:?}, held {held:?}, seen {seen:?}"
            ));
        }
    }

    // === the proxy ===

    fn agent_check(&mut self, index: usize) {
        self.after(CHECK, Event::AgentCheck(index));
        let now = self.world.now;
        let server = self.world.servers[index].id.clone();
        // Nobody answers: nothing changes.
        let Some(agent) = self.agent.as_ref().filter(|_| self.frozen.is_none()) else { return };
        let desired = agent.planner.desired(&server, &agent.fleet, now);
        if let Some(health) = desired.health {
            self.world.agent_down.insert(server.clone(), health.is_err());
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

    // === the agent's steps ===

    fn start_agent(&mut self) {
        self.incarnation += 1;
        self.agent = Some(Agent::start(&self.world, &self.policy, &self.disk.0, &self.disk.1));
        for index in 0..INSTANCES.len() {
            self.agent_after(Duration::ZERO, Step::Probe(index));
            self.agent_after(Duration::from_millis(5), Step::Liveness(index));
            self.agent_after(Duration::from_millis(10), Step::Table(index));
        }
        for step in [Step::Flags, Step::Sweep, Step::Credentials, Step::Tick] {
            self.agent_after(Duration::from_millis(1), step);
        }
    }

    fn step(&mut self, step: Step) {
        let now = self.world.now;
        let Some(agent) = &mut self.agent else { return };
        match step {
            Step::Probe(index) => match self.login(index) {
                Some(ticket) => self.send(Reach::Login(index, ticket, true)),
                None => self.agent_after(Duration::from_millis(50), Step::Probe(index)),
            },
            Step::Liveness(index) if agent.connected[index] => self.send(Reach::Role(index)),
            Step::Liveness(index) => match self.login(index) {
                Some(ticket) => self.send(Reach::Login(index, ticket, false)),
                None => self.agent_after(Duration::from_millis(50), Step::Liveness(index)),
            },
            Step::Table(index) => self.table(index),
            Step::Flags => self.send(Reach::Flags(now)),
            Step::Sweep => {
                let rested = agent.swept.is_none_or(|swept| now.since(swept) >= SECOND);
                if agent.wants_sweep() && rested && !agent.sweeping {
                    agent.swept = Some(now);
                    agent.sweeping = true;
                    self.send(Reach::Sweep(now));
                }
                self.agent_after(Duration::from_millis(50), Step::Sweep);
            }
            Step::Credentials => {
                agent.planner.observe_credentials(self.aws_away.is_none());
                self.agent_after(Duration::from_secs(3), Step::Credentials);
            }
            Step::Tick => self.tick(),
            Step::Arrives(input) => self.arrives(input),
        }
    }

    fn login(&mut self, index: usize) -> Option<agent_core::plan::Ticket> {
        let now = self.world.now;
        let id = self.world.instances[index].id.clone();
        self.agent.as_mut()?.budget.try_begin(&id, Purpose::Login, now)
    }

    fn table(&mut self, index: usize) {
        let now = self.world.now;
        let Some(agent) = &mut self.agent else { return };
        if let Some(retire) = agent.queues[index].pop_front() {
            if let Some(ticket) = agent.budget.try_begin(&retire.instance, retire.purpose, now) {
                return self.send(Reach::Close(Box::new(retire), ticket));
            }
            agent.answer(now, &retire, Retired::OverBudget);
            return self.agent_after(Duration::from_millis(1), Step::Table(index));
        }
        let focus = agent.focus(index);
        if now >= agent.all_at[index] || agent.wants_poll(index) {
            agent.all_at[index] = now + if agent.due() { SECOND } else { SECOND * 5 };
            self.send(Reach::Rows(index, now, None));
        } else if now >= agent.focus_at[index] && !focus.is_empty() {
            agent.focus_at[index] = now + Duration::from_millis(100);
            self.send(Reach::Rows(index, now, Some(focus)));
        } else {
            if agent.due() {
                agent.all_at[index] = agent.all_at[index].min(now + SECOND);
            }
            self.agent_after(Duration::from_millis(20), Step::Table(index));
        }
    }

    fn tick(&mut self) {
        let now = self.world.now;
        let Some(agent) = &mut self.agent else { return };
        if agent.tick_at.is_some_and(|at| at > now) {
            return;
        }
        self.counts.plans += 1;
        let commands = agent.tick(now);
        let wake = agent.plan.as_ref().map_or(now + SECOND, |plan| plan.next_wake);
        if wake > now + SECOND {
            self.break_rule(&format!("the next plan is {:?} away", now.until(wake)));
        }
        self.tick_at(wake);
        for command in commands {
            self.carry_out(command);
        }
    }

    fn tick_at(&mut self, at: Time) {
        let now = self.world.now;
        let Some(agent) = &mut self.agent else { return };
        if agent.tick_at.is_none_or(|tick| tick <= now || at < tick) {
            agent.tick_at = Some(at);
            self.agent_after(now.until(at), Step::Tick);
        }
    }

    fn arrives(&mut self, input: Input) {
        let now = self.world.now;
        let Some(agent) = &mut self.agent else { return };
        match &input {
            Input::Health { index, result, probe, login, .. } => {
                let (index, ok, probe, login) = (*index, result.is_ok(), *probe, *login);
                let wait = if probe {
                    self.world.random.millis(8_000, 10_000)
                } else {
                    agent.connected[index] = ok;
                    if ok {
                        agent.backoff[index] = Duration::from_millis(200);
                        agent.health.cadence(&self.world.instances[index].id)
                    } else if login {
                        let wait = agent.backoff[index];
                        agent.backoff[index] = (wait * 2).min(SECOND * 5);
                        wait
                    } else {
                        Duration::ZERO
                    }
                };
                self.agent_after(wait, if probe { Step::Probe(index) } else { Step::Liveness(index) });
            }
            Input::Rows { index, .. } => {
                let index = *index;
                self.agent_after(Duration::from_millis(1), Step::Table(index));
            }
            Input::Closed { retire, .. } => {
                let index = self.world.config(&retire.proxy.server).0;
                self.agent_after(Duration::from_millis(1), Step::Table(index));
            }
            Input::Flags { .. } => self.agent_after(Duration::from_millis(500), Step::Flags),
            Input::Outcome(Outcome::Drain { server, sent: Err(false) }) => {
                self.disk.1.retain(|record| record != server);
            }
            Input::Swept { .. } | Input::Outcome(_) | Input::Delivered(..) => {}
        }
        let Some(agent) = &mut self.agent else { return };
        for command in agent.take_in(now, input) {
            self.carry_out(command);
        }
        self.tick_at(now + Duration::from_millis(5));
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Retire(retire) => {
                self.check_command(&retire);
                let index = self.world.config(&retire.proxy.server).0;
                if let Some(agent) = &mut self.agent {
                    agent.queues[index].push_back(*retire);
                }
            }
            Command::Drain { server, .. } => {
                self.disk.1.push(server.clone());
                self.send(Reach::Drain(server));
            }
            Command::Undrain { server, .. } => self.send(Reach::Undrain(server)),
            Command::Forget { server } => {
                self.disk.1.retain(|record| *record != server);
                self.world.admin.forget(&server);
            }
        }
    }

    /// A command against the truth.
    fn check_command(&mut self, retire: &Retire) {
        let (now, policy) = (self.world.now, &self.policy);
        let (index, _) = self.world.config(&retire.proxy.server);
        // One that is down sends its clients elsewhere.
        let knows_refused = self.agent.as_ref().is_some_and(|agent| {
            agent.knows_refused[index] && agent.fleet.servers[&retire.proxy.server].state != State::Down
        });
        let truth = self.find(index, &retire.key);
        let wrong = if policy.mode != Mode::Retire {
            Some("the mode closes nothing")
        } else if knows_refused {
            Some("its instance is known to refuse logins")
        } else if let Some(session) = truth {
            let through = session.through.as_ref();
            let same = through.is_some_and(|through| {
                through.server == retire.proxy.server
                    && through.id == retire.proxy.key.id
                    && session.address == retire.client
            });
            let earliest = limit_of(policy, &session.key).saturating_sub(policy.window() + SECOND);
            if self.world.clients[session.client].kind.left_alone() {
                Some("it has to be left alone")
            } else if !same {
                Some("it is not the session that the proxy has")
            } else if now.since(session.begin) < earliest {
                Some("it is not due")
            } else {
                None
            }
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let of = truth.map(|session| self.world.clients[session.client].kind);
            let what = format!("{wrong}: {of:?} {retire:?}");
            self.break_rule(&what);
        }
    }

    fn find(&self, index: usize, key: &BackendKey) -> Option<&DbSession> {
        self.world.instances[index].sessions.get(&key.pid).filter(|session| session.key == *key)
    }

    // === at the database and the proxy ===

    fn reaches(&mut self, incarnation: u32, reach: Reach) {
        let now = self.world.now;
        let mut wait = self.latency();
        let lost = self.lossy && self.world.random.chance(40);
        let input = match reach {
            Reach::Login(index, ticket, probe) => {
                self.counts.own_logins += 1;
                self.load[index].push(now);
                let mut result = self.world.role(index, true);
                if self.aws_away.is_some_and(|since| now.since(since) > Duration::from_secs(20)) {
                    result = Err(own(FaultKind::NoToken));
                } else if lost || self.world.instances[index].condition == Condition::Silent {
                    result = Err(own(FaultKind::TimedOut));
                    wait = SECOND;
                }
                Input::Health { index, login: true, ticket: Some(ticket), result, probe }
            }
            Reach::Role(index) => {
                let mut result = self.world.role(index, false);
                if lost || self.world.instances[index].condition == Condition::Silent {
                    result = Err(own(FaultKind::TimedOut));
                    wait = SECOND;
                }
                Input::Health { index, login: false, ticket: None, result, probe: false }
            }
            Reach::Rows(index, at, only) => {
                let rows = self.world.rows(index, only.as_deref()).filter(|_| !lost);
                if rows.is_none() {
                    wait = SECOND;
                }
                Input::Rows { index, at, only, rows }
            }
            Reach::Flags(at) => {
                let truth = &self.world.admin.truth;
                let flags = truth.iter().map(|(server, truth)| (server.clone(), truth.flags)).collect();
                Input::Flags { at, flags: (!self.socket_dead).then_some(flags) }
            }
            Reach::Sweep(at) => {
                let sessions = (!self.socket_dead).then(|| self.world.sweep());
                Input::Swept { at, sessions }
            }
            Reach::Close(retire, ticket) => {
                let retired = self.close(&retire);
                Input::Closed { retire, ticket, retired }
            }
            Reach::Drain(server) => {
                let sent = if self.socket_dead { Err(false) } else { self.drain(&server) };
                Input::Outcome(Outcome::Drain { server, sent })
            }
            Reach::Undrain(server) => {
                let sent = !self.socket_dead && self.world.admin.undrain(&server);
                Input::Outcome(Outcome::Undrain { server, sent })
            }
        };
        self.after(wait, Event::Agent(incarnation, Step::Arrives(input)));
    }

    fn drain(&mut self, server: &ServerId) -> Result<(), bool> {
        let others = self.world.selectable(&server.backend).iter().filter(|other| *other != server).count();
        let calm = self.world.now.since(self.world.trouble) > RECOVERY;
        // While the world is changing, only what the agent could know counts.
        if others == 0 && calm {
            self.break_rule(&format!("{server} was drained, the last one"));
        }
        self.counts.drains += 1;
        self.world.admin.drain(server)
    }

    /// The guarded statement.
    fn close(&mut self, retire: &Retire) -> Retired {
        let now = self.world.now;
        let (index, _) = self.world.config(&retire.proxy.server);
        if self.world.instances[index].condition != Condition::Well {
            return Retired::Failed;
        }
        let Some(session) = self.find(index, &retire.key).cloned() else { return Retired::Gone };
        let quiet = match (session.doing, retire.how) {
            (Doing::Idle(since), How::Quiet(asked)) => now.since(since) >= asked,
            (Doing::Idle(_), How::Catch(_)) => true,
            (Doing::Transaction, How::Quiet(_) | How::Catch(_)) => false,
            (_, How::Force) => {
                self.break_rule("a session was forced without the operator's word");
                true
            }
        };
        if !quiet {
            self.counts.refused_closes += 1;
            return Retired::Busy;
        }
        let frozen = self.frozen.is_some_and(|since| now.since(since) > SECOND * 2);
        let away = self.aws_away.is_some_and(|since| now.since(since) > SECOND * 5);
        if frozen || away {
            self.break_rule(&format!("closed while frozen {frozen} or while AWS is away {away}"));
        }
        self.counts.closes += 1;
        self.load[index].push(now);
        self.world.instances[index].sessions.remove(&retire.key.pid);
        let client = session.client;
        if self.world.clients[client].kind == Kind::Fragile {
            self.world.clients[client].gone = true;
        } else {
            let back = self.world.random.millis(1, 1_500);
            self.after(back, Event::Connect(client));
        }
        Retired::Closed
    }
}
