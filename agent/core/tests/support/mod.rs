//! A small setup for tests of the planner: one database of a writer and two
//! readers, behind a writer and a reader backend of one proxy, and sessions on
//! them with a scripted activity.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::expect_used, reason = "a test may panic")]

pub mod haproxy;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use agent_core::{
    Fault, FaultKind, InstanceId, Phase, ProxyIndex, ServerId, Time,
    desired::{AgentCheck, agent_check},
    health::{Fleet, FleetConfig, Health, HealthRules, Observation, RoleFacts, ServerConfig, WantedRole},
    peers::{Look, Marks},
    plan::{
        AdminFlags, Budget, Command, HoldReason, Mode, Outcome, Plan, Planner, Policy, Retire, Retired,
        Subject,
    },
    session::{
        Activity, ActivityRow, Age, BackendKey, HaproxySessionKey, LastStatement, Ledger, ProxySession,
        ProxySessionKey, Seen,
    },
};

pub fn instance(name: &str) -> InstanceId {
    InstanceId::new("orders", name)
}

pub fn server(backend: &str, name: &str) -> ServerId {
    ServerId::new(ProxyIndex(0), backend, name)
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Mode retire, and nothing fixed by chance.
pub fn policy() -> Policy {
    Policy { mode: Mode::Retire, jitter: 0.0, login_budget: 1_000, ..Policy::default() }
}

/// The servers of instances `a` (writer), `b` and `c`, in backends `write` and `read`.
pub fn servers() -> Vec<ServerConfig> {
    let mut servers = Vec::new();
    for (backend, wanted) in [("write", WantedRole::Writer), ("read", WantedRole::Reader)] {
        for name in ["a", "b", "c"] {
            servers.push(ServerConfig {
                id: server(backend, name),
                instance: instance(name),
                wanted,
                commandable: true,
            });
        }
    }
    servers
}

/// One session as both sides would show it.
#[derive(Clone, Debug)]
pub struct Client {
    pub instance: InstanceId,
    pub row: ActivityRow,
    pub proxy: ProxySession,
    pub begin: Time,
    /// Since when it is idle, where it says that it is.
    pub idle_since: Time,
    /// What the proxies list of it.
    pub listed: Listed,
}

/// What the proxies list of a session.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    Once,
    Never,
    Twice,
    /// With an age that is off by this much.
    Off(Duration),
}

/// When a rig begins, with a login on each instance.
pub fn begin() -> Time {
    Time::AGENT_START + secs(100_000)
}

pub struct Rig {
    pub now: Time,
    pub health: Health,
    pub ledger: Ledger,
    pub planner: Planner,
    pub budget: Budget,
    pub clients: Vec<Client>,
    pub flags: AdminFlags,
    /// Whether the database says when a session began.
    pub dated: bool,
    /// Instances that the agent's mark is on, as it wanted last.
    pub marks: BTreeSet<InstanceId>,
    /// Instances that another agent drains.
    pub peer_drains: BTreeSet<InstanceId>,
    /// Instances whose locks cannot be read.
    pub unmet: BTreeSet<InstanceId>,
    next_pid: u64,
}

impl Rig {
    pub fn new(policy: Policy) -> Self {
        let servers = servers();
        let instances = ["a", "b", "c"].iter().map(|name| (instance(name), HealthRules::default())).collect();
        let mut rig = Self {
            now: begin(),
            health: Health::new(
                FleetConfig { instances, servers: servers.clone(), ..FleetConfig::default() },
                &[],
            ),
            ledger: Ledger::new(&servers),
            budget: Budget::new(policy.login_budget),
            planner: Planner::new(policy, &servers),
            clients: Vec::new(),
            flags: AdminFlags::default(),
            dated: true,
            marks: BTreeSet::new(),
            peer_drains: BTreeSet::new(),
            unmet: BTreeSet::new(),
            next_pid: 1,
        };
        rig.probe();
        rig.look();
        rig
    }

    /// All instances are well and in their roles.
    pub fn probe(&mut self) {
        for (name, in_recovery) in [("a", false), ("b", true), ("c", true)] {
            self.tell(name, Ok(in_recovery));
        }
    }

    /// One login's result: whether it is in recovery, or the fault.
    pub fn tell(&mut self, name: &str, result: Result<bool, FaultKind>) {
        let result = result
            .map(|in_recovery| RoleFacts {
                in_recovery,
                read_only: false,
                follows_source: false,
                timeline: None,
                lag: None,
                agents: 1,
            })
            .map_err(|kind| Fault::new(Phase::Login, kind, "for the test"));
        let observation = Observation { instance: instance(name), at: self.now, login: true, result };
        self.health.observe(&observation);
    }

    /// A quiet session of this age through `backend`, idle for ten seconds.
    pub fn client(&mut self, backend: &str, name: &str, age: Duration) -> usize {
        let pid = self.next_pid;
        self.next_pid += 1;
        let outgoing: SocketAddr = format!("10.0.0.9:{}", 10_000 + pid % 50_000).parse().expect("an address");
        let source: SocketAddr = format!("192.0.2.{}:{}", pid % 200, 40_000).parse().expect("an address");
        self.clients.push(Client {
            instance: instance(name),
            row: ActivityRow {
                key: BackendKey { pid, started_us: i64::try_from(pid).expect("small") * 1_000 },
                client: Some(outgoing),
                user: "app".into(),
                iam_user: true,
                database_name: "orders".into(),
                application: "shop".into(),
                client_backend: true,
                superuser: false,
                age: Age::Exactly(age),
                activity: Activity::Idle(secs(10)),
                last_statement: LastStatement::Other,
                advisory_lock: Some(false),
            },
            proxy: ProxySession {
                key: ProxySessionKey::Haproxy(HaproxySessionKey {
                    worker: 1,
                    pointer: "0x1".into(),
                    id: pid,
                    accepted: "then".into(),
                }),
                server: server(backend, name),
                source: Some(source),
                outgoing,
                peer: "10.0.1.1:5432".parse().expect("an address"),
                age,
                old_worker: false,
            },
            begin: self.now - age,
            idle_since: self.now - secs(10),
            listed: Listed::Once,
        });
        self.clients.len() - 1
    }

    /// What the database shows of it from now on; idle begins now.
    pub fn does(&mut self, client: usize, activity: Activity) {
        self.idle(client, self.now, activity);
    }

    fn idle(&mut self, client: usize, since: Time, activity: Activity) {
        let client = self.clients.get_mut(client).expect("a client");
        client.row.activity = activity;
        client.idle_since = since;
    }

    /// Both sources and the admin flags, as they are now.
    pub fn look(&mut self) {
        self.poll();
        self.sweep();
        self.admin();
    }

    pub fn poll(&mut self) {
        self.poll_all_but("");
    }

    /// The table of one instance cannot be read.
    pub fn poll_all_but(&mut self, not: &str) {
        for name in ["a", "b", "c"].into_iter().filter(|name| *name != not) {
            let id = instance(name);
            let rows = self
                .clients
                .iter()
                .filter(|client| client.instance == id)
                .map(|client| self.row(client))
                .collect();
            self.ledger.observe_activity(&id, self.now, Seen::All, rows);
        }
    }

    fn row(&self, client: &Client) -> ActivityRow {
        let activity = match client.row.activity {
            Activity::Idle(_) => Activity::Idle(self.now.since(client.idle_since)),
            other => other,
        };
        let age = match activity {
            _ if self.dated => Age::Exactly(self.now.since(client.begin)),
            Activity::Idle(idle) => Age::AtLeast(idle),
            _ => Age::AtLeast(Duration::ZERO),
        };
        ActivityRow { age, activity, ..client.row.clone() }
    }

    pub fn sweep(&mut self) {
        let mut sessions = Vec::new();
        for client in &self.clients {
            let age = self.now.since(client.begin);
            let session = ProxySession { age, ..client.proxy.clone() };
            match client.listed {
                Listed::Never => {}
                Listed::Once => sessions.push(session),
                Listed::Twice => sessions.extend([session.clone(), session]),
                Listed::Off(by) => sessions.push(ProxySession { age: age + by, ..session }),
            }
        }
        self.ledger.observe_proxy(ProxyIndex(0), self.now, sessions);
    }

    pub fn admin(&mut self) {
        let flags = self.flags;
        for config in servers() {
            self.planner.observe_admin(&config.id, self.now, flags);
        }
        self.ledger.proxy_alive(ProxyIndex(0), self.now);
    }

    pub fn set_flags(&mut self, server: &ServerId, flags: AdminFlags) -> Option<Command> {
        self.planner.observe_admin(server, self.now, flags)
    }

    pub fn wait(&mut self, by: Duration) -> &mut Self {
        self.now = self.now + by;
        self
    }

    pub fn fleet(&mut self) -> Fleet {
        self.health.observe_admissions(self.planner.drains().admissions());
        self.health.fleet(self.now)
    }

    /// The plan of this moment, after the locks at the instances were read as often as it wants.
    pub fn plan(&mut self) -> Plan {
        let mut commands = Vec::new();
        loop {
            self.meet();
            let mut plan = self.plan_once();
            self.marks.clone_from(&plan.marks);
            commands.append(&mut plan.commands);
            if plan.meet.is_empty() || !plan.meet.is_disjoint(&self.unmet) {
                plan.commands = commands;
                return plan;
            }
        }
    }

    pub fn plan_once(&mut self) -> Plan {
        let fleet = self.fleet();
        self.planner.plan(self.now, &self.ledger, &fleet, &self.budget)
    }

    /// Sets the agent's marks and reads the locks at all instances.
    pub fn meet(&mut self) {
        for id in ["a", "b", "c"].map(instance) {
            let look = if self.unmet.contains(&id) {
                Err(Fault::new(Phase::Query, FaultKind::Disconnected, "for the test"))
            } else {
                let own = Marks { drain: self.marks.contains(&id), ..Marks::default() };
                let drains = u32::from(self.peer_drains.contains(&id));
                Ok(Look { own, peers: 1, drains, ..Look::default() })
            };
            self.planner.observe_peers(&id, self.now, self.now, look);
        }
    }

    /// What an agent check of this server is answered now.
    pub fn agent_check(&self, server: &ServerId, fleet: &Fleet) -> AgentCheck {
        agent_check(fleet.servers.get(server), self.planner.drains().word(server, self.now))
    }

    /// Time passes in steps of a tenth of a second, with all sources well; the last plan.
    pub fn pass(&mut self, by: Duration) -> Plan {
        let end = self.now + by;
        while self.now < end {
            self.wait(millis(100));
            self.probe();
            self.look();
            let plan = self.plan();
            if self.now >= end {
                return plan;
            }
        }
        self.plan()
    }

    /// What became of a close.
    pub fn retired(&mut self, retire: &Retire, retired: Retired) {
        let outcome = Outcome::Retire { instance: retire.instance.clone(), key: retire.key, retired };
        self.planner.outcome(self.now, &outcome);
    }
}

/// The closes of a plan.
pub fn retires(plan: &Plan) -> Vec<&Retire> {
    plan.commands
        .iter()
        .filter_map(|command| match command {
            Command::Retire(retire) => Some(&**retire),
            _ => None,
        })
        .collect()
}

/// The servers that a plan drains.
pub fn drains(plan: &Plan) -> Vec<&ServerId> {
    plan.commands
        .iter()
        .filter_map(|command| match command {
            Command::Drain { server, .. } => Some(server),
            _ => None,
        })
        .collect()
}

/// The servers whose drain a plan takes back.
pub fn undrains(plan: &Plan) -> Vec<&ServerId> {
    plan.commands
        .iter()
        .filter_map(|command| match command {
            Command::Undrain { server, .. } => Some(server),
            _ => None,
        })
        .collect()
}

/// Why this session is held.
pub fn held(plan: &Plan, client: &Client) -> Option<HoldReason> {
    plan.holds.iter().find_map(|hold| match &hold.subject {
        Subject::Session { key, .. } if *key == client.row.key => Some(hold.reason),
        _ => None,
    })
}

/// Why this server is held.
pub fn held_server(plan: &Plan, server: &ServerId) -> Option<HoldReason> {
    plan.holds.iter().find_map(|hold| match &hold.subject {
        Subject::Server(id) if id == server => Some(hold.reason),
        _ => None,
    })
}
