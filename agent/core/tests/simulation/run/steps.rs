//! The agent's steps: what its tasks ask, when, and what is checked of each command.

use super::*;

impl Run {
    pub(super) fn start_agent(&mut self) {
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

    pub(super) fn step(&mut self, step: Step) {
        let now = self.world.now;
        let Some(agent) = &mut self.agent else { return };
        match step {
            Step::Probe(index) => {
                if agent.wants_probe(index, now)
                    && let Some(ticket) = self.login(index)
                {
                    if let Some(agent) = &mut self.agent {
                        agent.probe_at[index] = None;
                    }
                    self.send(Reach::Login(index, ticket, true));
                }
                self.agent_after(Duration::from_millis(50), Step::Probe(index));
            }
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

    pub(super) fn login(&mut self, index: usize) -> Option<agent_core::plan::Ticket> {
        let now = self.world.now;
        let id = self.world.instances[index].id.clone();
        self.agent.as_mut()?.budget.try_begin(&id, Purpose::Login, now)
    }

    pub(super) fn table(&mut self, index: usize) {
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
            agent.all_at[index] = now + if agent.closing() { SECOND } else { SECOND * 5 };
            self.send(Reach::Rows(index, now, None));
        } else if now >= agent.focus_at[index] && !focus.is_empty() {
            agent.focus_at[index] = now + Duration::from_millis(100);
            self.send(Reach::Rows(index, now, Some(focus)));
        } else {
            if agent.closing() {
                agent.all_at[index] = agent.all_at[index].min(now + SECOND);
            }
            self.agent_after(Duration::from_millis(20), Step::Table(index));
        }
    }

    pub(super) fn tick(&mut self) {
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

    pub(super) fn tick_at(&mut self, at: Time) {
        let now = self.world.now;
        let Some(agent) = &mut self.agent else { return };
        if agent.tick_at.is_none_or(|tick| tick <= now || at < tick) {
            agent.tick_at = Some(at);
            self.agent_after(now.until(at), Step::Tick);
        }
    }

    pub(super) fn arrives(&mut self, input: Input) {
        let now = self.world.now;
        let Some(agent) = &mut self.agent else { return };
        match &input {
            Input::Health { index, result, probe, login, .. } => {
                let (index, ok, probe, login) = (*index, result.is_ok(), *probe, *login);
                if probe {
                    agent.probed[index] = now;
                    agent.probe_at[index] = Some(now + self.world.random.millis(8_000, 10_000));
                } else {
                    agent.connected[index] = ok;
                    let wait = if ok {
                        agent.backoff[index] = Duration::from_millis(200);
                        agent.health.cadence(&self.world.instances[index].id)
                    } else if login {
                        let wait = agent.backoff[index];
                        agent.backoff[index] = (wait * 2).min(SECOND * 5);
                        wait
                    } else {
                        Duration::ZERO
                    };
                    self.agent_after(wait, Step::Liveness(index));
                }
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
            Input::Outcome(Outcome::Drain { server, sent: DrainSent::NotSent }) => {
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

    pub(super) fn carry_out(&mut self, command: Command) {
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
    pub(super) fn check_command(&mut self, retire: &Retire) {
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

    pub(super) fn find(&self, index: usize, key: &BackendKey) -> Option<&DbSession> {
        self.world.instances[index].sessions.get(&key.pid).filter(|session| session.key == *key)
    }
}
