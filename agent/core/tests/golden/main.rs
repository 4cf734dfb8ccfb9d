//! What the planner does, as text that a person can read: each scene is played, its plans are printed
//! and compared with a file beside this one. `UPDATE_GOLDEN=1` rewrites the files.
//!
//! A line appears only when it differs from the one before it.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "the expected text is in files")]

#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use agent_core::{
    FaultKind, ProxyIndex, ServerId,
    desired::{AgentHealth, Member, endpoints},
    health::{Fleet, ServerConfig},
    plan::{
        AdminFlags, Close, Command, DrainSent, Mode, Outcome, Plan, Planner, Policy, Requested, Retired,
        Subject,
    },
};
use support::{Rig, begin, instance, millis, policy, secs, server, servers};

/// A scene under way: the rig, who answers its commands, and what was printed.
struct Scene {
    rig: Rig,
    /// Whether clients that are closed log in again.
    clients_return: bool,
    /// Sessions that live through Envoy, not through HAProxy.
    envoy: bool,
    drained: BTreeMap<ServerId, bool>,
    roles: [Result<bool, FaultKind>; 3],
    text: String,
    last: BTreeMap<&'static str, String>,
}

impl Scene {
    fn new(policy: Policy) -> Self {
        Self {
            rig: Rig::new(policy),
            clients_return: true,
            envoy: false,
            drained: BTreeMap::new(),
            roles: [Ok(false), Ok(true), Ok(true)],
            text: String::new(),
            last: BTreeMap::new(),
        }
    }

    fn note(&mut self, text: &str) {
        writeln!(self.text, "\n# {text}").expect("a string");
    }

    /// Time passes in steps of 100 ms; every source answers and every command is carried out.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.rig.wait(millis(100));
            for (name, role) in ["a", "b", "c"].into_iter().zip(self.roles) {
                self.rig.tell(name, role);
            }
            self.rig.poll();
            self.rig.sweep();
            let mut commands = self.show_proxy();
            let fleet = self.rig.fleet();
            let plan = self.rig.plan();
            self.print(&plan, &fleet);
            commands.extend(plan.commands);
            for command in commands {
                self.carry_out(command);
            }
        }
    }

    fn show_proxy(&mut self) -> Vec<Command> {
        let (now, mut commands) = (self.rig.now, Vec::new());
        for config in servers() {
            let drain = self.drained.get(&config.id).copied().unwrap_or_default();
            commands.extend(if self.envoy {
                self.rig.planner.observe_endpoint(&config.id, now, drain)
            } else {
                let flags = AdminFlags { drain, ..AdminFlags::default() };
                self.rig.planner.observe_admin(&config.id, now, flags)
            });
        }
        self.rig.ledger.proxy_alive(ProxyIndex(0), now);
        commands
    }

    fn carry_out(&mut self, command: Command) {
        let now = self.rig.now;
        match command {
            Command::Retire(retire) => {
                let how = match retire.how {
                    Close::Quiet(idle) => format!("by the database if idle for {idle:?}"),
                    Close::QuietByProxy(idle) => format!("by the proxy, idle for {idle:?}"),
                    Close::Catch => "by the database as it goes idle".to_owned(),
                    Close::Force => "by the proxy whatever it does".to_owned(),
                };
                let (age, limit) = (retire.age.as_secs(), retire.limit.as_secs());
                self.line(&format!(
                    "close pid {} on {} {how} (age {age} s, limit {limit} s)",
                    retire.key.pid, retire.instance
                ));
                self.rig.clients.retain(|client| client.row.key != retire.key);
                self.rig.retired(&retire, Retired::Closed);
                if self.clients_return {
                    let backend = retire.proxy.server.backend.to_string();
                    self.rig.client(&backend, retire.instance.instance.as_str(), millis(0));
                }
            }
            Command::Drain { server, reason } => {
                self.line(&format!("drain {server}: {reason}"));
                self.drained.insert(server.clone(), true);
                self.rig.planner.outcome(now, &Outcome::Drain { server, sent: DrainSent::Sent });
            }
            Command::Undrain { server, reason } => {
                self.line(&format!("undrain {server}: {reason:?}"));
                self.drained.remove(&server);
                self.rig.planner.outcome(now, &Outcome::Undrain { server, taken: true });
            }
            Command::Forget { server } => self.line(&format!("forget the record of {server}")),
        }
    }

    /// Changes of the holds and of the answers to the proxy.
    fn print(&mut self, plan: &Plan, fleet: &Fleet) {
        let mut holds: BTreeMap<String, usize> = BTreeMap::new();
        for hold in &plan.holds {
            let subject = match &hold.subject {
                Subject::Session { instance, .. } => format!("sessions on {instance}"),
                Subject::Server(server) => format!("the drain of {server}"),
            };
            *holds.entry(format!("{subject}: {:?}", hold.reason)).or_default() += 1;
        }
        let holds: Vec<String> = holds.into_iter().map(|(what, count)| format!("{what} ({count})")).collect();
        self.change("held", if holds.is_empty() { "nothing".into() } else { holds.join(", ") });
        let told = if self.envoy { self.endpoints(fleet) } else { self.agent_checks(fleet) };
        self.change(if self.envoy { "endpoints" } else { "agent checks" }, told);
    }

    fn agent_checks(&self, fleet: &Fleet) -> String {
        let one = |config: ServerConfig| {
            let word = match self.rig.agent_check(&config.id, fleet).health {
                Some(AgentHealth::Up) => "up",
                Some(AgentHealth::Down(_)) => "down",
                None => "-",
            };
            format!("{} {word}", config.id)
        };
        servers().into_iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn endpoints(&self, fleet: &Fleet) -> String {
        let servers = servers();
        let cluster = |name: &str| {
            let members: Vec<Member<'_>> = servers
                .iter()
                .filter(|config| *config.id.backend == *name)
                .map(|server| Member {
                    server,
                    verdict: fleet.servers.get(&server.id),
                    drained: self.drained.get(&server.id).copied().unwrap_or_default(),
                    resolved: true,
                })
                .collect();
            match endpoints(&members, false) {
                Some(health) => members
                    .iter()
                    .zip(health)
                    .map(|(member, health)| format!("{} {health:?}", member.server.id).to_lowercase())
                    .collect::<Vec<_>>()
                    .join(", "),
                None => format!("{name} as before"),
            }
        };
        format!("{}, {}", cluster("write"), cluster("read"))
    }

    fn change(&mut self, what: &'static str, now: String) {
        if self.last.get(what) != Some(&now) {
            self.line(&format!("{what}: {now}"));
            self.last.insert(what, now);
        }
    }

    fn line(&mut self, text: &str) {
        let at = self.rig.now.since(begin()).as_secs_f64();
        writeln!(self.text, "{at:>6.1} s  {text}").expect("a string");
    }

    #[track_caller]
    fn compare(self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &self.text).expect("the file of the scene");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(self.text, expected, "UPDATE_GOLDEN=1 rewrites {}", path.display());
    }
}

#[test]
fn rolling_limit() {
    let mut scene = Scene::new(policy());
    scene.note(
        "Five sessions of different ages, idle; clients return at once. Due from 600 s, gone by 840 s.",
    );
    for age in [550, 590, 700, 800, 850] {
        scene.rig.client("write", "a", secs(age));
    }
    scene.pass(60);
    scene.compare("rolling_limit");
}

#[test]
fn drain_cohort() {
    let mut scene = Scene::new(Policy { mode: Mode::Drain, ..policy() });
    scene.note("All four sessions on reader b are due. Nothing is closed in mode drain.");
    for _ in 0..4 {
        scene.rig.client("read", "b", secs(700));
    }
    scene.pass(5);
    scene.note("The clients leave by themselves.");
    scene.rig.clients.clear();
    scene.pass(5);
    scene.compare("drain_cohort");
}

#[test]
fn capacity_floor() {
    let mut scene = Scene::new(Policy { mode: Mode::Drain, ..policy() });
    scene.note("All four sessions on reader b are due, but reader c refuses connections.");
    scene.roles[2] = Err(FaultKind::ConnectionRefused);
    scene.pass(2);
    for _ in 0..4 {
        scene.rig.client("read", "b", secs(700));
    }
    scene.pass(3);
    scene.note("c is back.");
    scene.roles[2] = Ok(true);
    scene.pass(3);
    scene.compare("capacity_floor");
}

#[test]
fn breaker() {
    let mut scene = Scene::new(policy());
    scene.note("Ten sessions of one application past their limit. Its clients log in at their next use.");
    scene.clients_return = false;
    for _ in 0..10 {
        scene.rig.client("write", "a", secs(841));
    }
    scene.pass(30);
    scene.compare("breaker");
}

#[test]
fn failover() {
    let mut scene = Scene::new(Policy { demotion_grace: Some(secs(5)), ..policy() });
    scene.note("Three young sessions on writer a, `demotion_grace` is 5 s.");
    for _ in 0..3 {
        scene.rig.client("write", "a", secs(30));
    }
    scene.pass(2);
    scene.note("a refuses connections, b is promoted.");
    scene.roles = [Err(FaultKind::ConnectionRefused), Ok(false), Ok(true)];
    scene.pass(3);
    scene.note("a is back as a reader.");
    scene.roles[0] = Ok(true);
    scene.pass(10);
    scene.compare("failover");
}

#[test]
fn envoy() {
    let mut scene = Scene::new(policy());
    let servers = servers().into_iter().map(|server| ServerConfig { commandable: false, ..server });
    scene.rig.planner = Planner::new(policy(), &servers.collect::<Vec<_>>());
    scene.envoy = true;
    scene.note("Two due sessions on reader b behind an Envoy.");
    for _ in 0..2 {
        scene.rig.client("read", "b", secs(700));
    }
    scene.pass(3);
    scene.note("An operator drains b.");
    let fleet = scene.rig.fleet();
    let now = scene.rig.now;
    scene
        .rig
        .planner
        .request_drain(&server("read", "b"), Requested::default(), &fleet, now)
        .expect("a drain");
    scene.pass(2);
    scene.note("Reader c stops: b is needed.");
    scene.roles[2] = Err(FaultKind::ConnectionRefused);
    scene.pass(3);
    assert!(scene.rig.ledger.polled(&instance("b")).is_some());
    scene.compare("envoy");
}
