//! The agent in its arm: start, end, steps, and what its decisions do at the proxy.

use std::{collections::BTreeMap, time::Duration};

use agent_core::{
    ProxyIndex, Time,
    desired::{AgentHealth, agent_check},
    health::{Fleet, Observation, ProxyView},
    plan::{Command, DrainSent, Outcome},
};

use super::{Arm, Event};
use crate::{
    agent::{self, Agent, LATENCY, Progress, ROLES, Step, Task, instance, server},
    haproxy::backend,
    proxy::Proxy,
};

/// How often what hangs is looked at again.
const AGAIN: Duration = Duration::from_millis(100);

/// How often the proxy's tables are read.
const LOOKS: Duration = Duration::from_millis(500);

/// Inputs are taken in together for this long.
const GATHER: Duration = Duration::from_millis(5);

impl Arm<'_> {
    pub(super) fn start_agent(&mut self) {
        self.life += 1;
        let seed = self.script.seed ^ u64::from(self.life);
        let agent = Agent::start(self.script, &self.left, self.now, seed);
        self.agent = Some(agent);
        self.held.clear();
        let (now, life) = (self.now, self.life);
        for index in 0..self.script.servers {
            if let Some(agent) = &mut self.agent {
                agent.probes[index].at = Some(now);
                agent.liveness[index].at = Some(now);
            }
            self.at(now, Event::Agent(life, Step::Login(Task::Probe, index)));
            self.at(now, Event::Agent(life, Step::Login(Task::Liveness, index)));
        }
        self.at(now, Event::Agent(life, Step::Look));
        self.at(now, Event::Agent(life, Step::Tick));
    }

    pub(super) fn end_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            self.left = agent.leaves(&self.drains);
        }
    }

    /// It releases what it keeps down or drained, and ends.
    pub(super) fn stop_agent(&mut self) {
        let now = self.now;
        let Some(agent) = &mut self.agent else { return };
        let downs = agent.health.downs();
        agent.health.release(true);
        agent.fleet = agent.health.fleet(now);
        if !self.proxy_down {
            self.publish();
            if let Proxy::Haproxy(haproxy) = &mut self.proxy {
                for down in downs.iter().filter(|down| !down.by_role) {
                    let (role, index) = agent::place(&down.server);
                    haproxy.hears(role, index, Some(AgentHealth::Up));
                }
                for id in std::mem::take(&mut self.drains) {
                    let (role, index) = agent::place(&id);
                    let entry = &mut haproxy.backends[backend(role)][index];
                    if std::mem::take(&mut entry.own_drain) {
                        entry.flags.drain = false;
                    }
                }
                haproxy.dump();
            }
        }
        self.end_agent();
        // What stays down stays for its role, and is on record.
        self.left.downs.retain(|down| down.by_role);
    }

    pub(super) fn freeze_agent(&mut self, frozen: bool) {
        let (now, life) = (self.now, self.life);
        let Some(agent) = &mut self.agent else { return };
        agent.frozen = frozen;
        if !frozen {
            agent.thawed = now;
            for step in std::mem::take(&mut self.held) {
                self.at(now, Event::Agent(life, step));
            }
        }
    }

    pub(super) fn agent_next(&mut self, steps: impl IntoIterator<Item = (Duration, Step)>) {
        for (wait, step) in steps {
            self.after(wait, Event::Agent(self.life, step));
        }
    }

    pub(super) fn agent_step(&mut self, life: u32, step: Step) {
        let now = self.now;
        if life != self.life {
            return;
        }
        let Some(agent) = &mut self.agent else { return };
        if agent.frozen {
            return self.held.push(step);
        }
        if !agent.is_due(&step, now) {
            return;
        }
        match step {
            Step::Login(task, index) => self.login(task, index, now),
            Step::Hangs(task, index, began) => self.login(task, index, began),
            Step::Query(index) => self.query(index, now),
            Step::QueryHangs(index, began) => self.query(index, began),
            Step::Arrives(task, index, observation) => {
                let next = agent.ended(now, task, index, &observation);
                self.agent_next(next);
                self.tick_by(now + GATHER);
            }
            Step::Look => {
                self.look();
                self.agent_next([(LOOKS, Step::Look)]);
                self.tick_by(now + GATHER);
            }
            Step::Tick => {
                if agent.tick_at.is_none_or(|at| at <= now) {
                    self.tick();
                }
            }
        }
    }

    fn login(&mut self, task: Task, index: usize, began: Time) {
        let Some(agent) = &mut self.agent else { return };
        if task == Task::Liveness {
            agent.liveness[index].epoch = self.world.servers[index].epoch;
        }
        let progress = agent.login(&self.world, &self.paths, self.no_token, index);
        self.progress(progress, began, true, task, index, Step::Hangs(task, index, began));
    }

    fn query(&mut self, index: usize, began: Time) {
        let Some(agent) = &self.agent else { return };
        let progress = agent.query(&self.world, &self.paths, index);
        self.progress(progress, began, false, Task::Liveness, index, Step::QueryHangs(index, began));
    }

    fn progress(
        &mut self,
        progress: Progress,
        began: Time,
        login: bool,
        task: Task,
        index: usize,
        again: Step,
    ) {
        let result = match progress {
            Progress::Hangs(fault, limit) if self.now.since(began) >= limit => Err(fault),
            Progress::Hangs(_, limit) => {
                let left = (began + limit).since(self.now);
                return self.agent_next([(AGAIN.min(left), again)]);
            }
            Progress::Ended(result) => result,
        };
        let takes = if login { Agent::login_takes(&result) } else { LATENCY };
        // An answer is as old as the query; a fault as the beginning of the login.
        let at = if result.is_ok() { self.now } else { began };
        let observation = Observation { instance: instance(index), at, login, result };
        self.agent_next([(takes, Step::Arrives(task, index, Box::new(observation)))]);
    }

    /// A client has logged in; the agent sees it in the tables of the next second.
    pub(super) fn logged_in(&mut self, index: usize) {
        let now = self.now;
        if let Some(agent) = self.agent.as_mut().filter(|agent| !agent.frozen)
            && agent.liveness[index].session.is_some()
        {
            agent.health.observe_client_login(&instance(index), now);
        }
    }

    /// The agent reads HAProxy's tables. Of an Envoy it knows that nothing of its own is drained there.
    fn look(&mut self) {
        if let (Proxy::Envoy(_), Some(agent)) = (&self.proxy, &mut self.agent) {
            for config in &agent.servers {
                agent.planner.observe_endpoint(&config.id, self.now, false);
            }
        }
        let (Proxy::Haproxy(haproxy), false) = (&mut self.proxy, self.proxy_down) else { return };
        let Some(agent) = &mut self.agent else { return };
        let mut view = ProxyView::default();
        let mut forgotten = Vec::new();
        for role in ROLES {
            let up = haproxy.up(role);
            view.up.extend(up.into_iter().map(|index| server(role, index)));
            if haproxy.room {
                view.fallbacks.insert(server(role, 0).backend);
            }
            for (index, entry) in haproxy.backends[backend(role)].iter().enumerate() {
                let id = server(role, index);
                view.connects.insert(id.clone(), entry.connects);
                forgotten.extend(agent.planner.observe_admin(&id, self.now, entry.flags));
            }
        }
        agent.health.observe_proxy(ProxyIndex(0), self.now, view);
        for command in &forgotten {
            if let Some(server) = agent::forgets(command) {
                self.drains.remove(server);
            }
        }
        haproxy.dump();
    }

    pub(super) fn tick_by(&mut self, at: Time) {
        let Some(agent) = &mut self.agent else { return };
        if agent.tick_at.is_none_or(|tick| at < tick) {
            agent.tick_at = Some(at);
            self.at(at, Event::Agent(self.life, Step::Tick));
        }
    }

    fn tick(&mut self) {
        let now = self.now;
        let Some(agent) = &mut self.agent else { return };
        agent.tick_at = None;
        let before = agent.fleet.clone();
        let plan = agent.tick(now);
        self.tell_verdicts(&before);
        self.command_health(&before);
        for command in plan.commands {
            self.carry_out(command);
        }
        self.publish();
        self.tick_by(plan.next_wake);
    }

    fn tell_verdicts(&mut self, before: &Fleet) {
        let Some(agent) = &self.agent else { return };
        let changed: BTreeMap<_, _> = agent
            .verdicts()
            .iter()
            .filter(|(id, verdict)| {
                before.servers.get(id).map(|verdict| (verdict.state, verdict.reason))
                    != Some((verdict.state, verdict.reason))
            })
            .map(|(id, verdict)| (id.clone(), *verdict))
            .collect();
        for (id, verdict) in changed {
            self.note(|| format!("agent: {id} {:?} ({:?})", verdict.state, verdict.reason));
        }
    }

    /// HAProxy gets a changed verdict at once, not at its next check.
    fn command_health(&mut self, before: &Fleet) {
        let (Some(agent), Proxy::Haproxy(haproxy), false) = (&self.agent, &mut self.proxy, self.proxy_down)
        else {
            return;
        };
        for (id, verdict) in &agent.fleet.servers {
            let now = agent_check(Some(verdict), None).health.map(|health| health == AgentHealth::Up);
            let said = before
                .servers
                .get(id)
                .map(|before| agent_check(Some(before), None).health.map(|health| health == AgentHealth::Up));
            if let (Some(up), Some(said)) = (now, said)
                && said != Some(up)
            {
                let (role, index) = agent::place(id);
                haproxy.hears(role, index, agent_check(Some(verdict), None).health);
            }
        }
        haproxy.dump();
    }

    fn carry_out(&mut self, command: Command) {
        let now = self.now;
        let (Some(agent), Proxy::Haproxy(haproxy)) = (&mut self.agent, &mut self.proxy) else { return };
        match command {
            Command::Drain { server: id, .. } => {
                let (role, index) = agent::place(&id);
                let entries = &mut haproxy.backends[backend(role)];
                let another = entries
                    .iter()
                    .enumerate()
                    .any(|(other, entry)| other != index && entry.up && entry.flags.clear());
                let sent = if !self.proxy_down && another && entries[index].flags.clear() {
                    entries[index].flags.drain = true;
                    entries[index].own_drain = true;
                    self.drains.insert(id.clone());
                    DrainSent::Sent
                } else {
                    DrainSent::NotSent
                };
                agent.planner.outcome(now, &Outcome::Drain { server: id.clone(), sent });
                self.note(|| format!("agent: drain {id} {sent:?}"));
            }
            Command::Undrain { server: id, .. } => {
                let (role, index) = agent::place(&id);
                let entry = &mut haproxy.backends[backend(role)][index];
                if entry.flags.drain && !entry.flags.maint && !self.proxy_down {
                    entry.flags.drain = false;
                    entry.own_drain = false;
                }
                let taken = !self.proxy_down;
                agent.planner.outcome(now, &Outcome::Undrain { server: id.clone(), taken });
                self.note(|| format!("agent: undrain {id}"));
            }
            Command::Forget { server } => drop(self.drains.remove(&server)),
            Command::Retire(_) => {}
        }
    }
}
