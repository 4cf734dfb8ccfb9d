//! The world without the agent: databases, one HAProxy, clients. Everything here
//! is the truth; the agent only ever sees what the tasks show it of it.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use agent_core::{
    Fault, FaultKind, InstanceId, Phase, ProxyIndex, ServerId, Time,
    health::{RoleFacts, ServerConfig, WantedRole},
    session::{
        Activity, ActivityRow, Age, BackendKey, HaproxySessionKey, LastStatement, ProxySession,
        ProxySessionKey,
    },
};

use crate::{haproxy::Admin, random::Random};

pub const INSTANCES: [&str; 3] = ["a", "b", "c"];

/// How an instance meets those who come.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Well,
    /// Crashed: nothing listens.
    Refusing,
    /// Stopped: connections hang.
    Silent,
}

/// Whose logins are refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Refuses {
    Nobody,
    TheAgent,
    Everybody,
}

#[derive(Debug)]
pub struct Instance {
    pub id: InstanceId,
    pub writer: bool,
    pub timeline: u32,
    pub condition: Condition,
    pub refuses: Refuses,
    pub sessions: BTreeMap<u64, DbSession>,
    next_pid: u64,
}

/// One session, as it is.
#[derive(Clone, Debug)]
pub struct DbSession {
    pub key: BackendKey,
    pub begin: Time,
    pub client: usize,
    pub address: SocketAddr,
    pub through: Option<Through>,
    pub doing: Doing,
}

/// The proxy's side of it.
#[derive(Clone, Debug)]
pub struct Through {
    pub server: ServerId,
    pub id: u64,
    pub source: SocketAddr,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    Idle(Time),
    Transaction,
}

/// What sort of client it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Thinks for a while between transactions.
    Pool,
    /// Never pauses for more than 50 ms.
    Restless,
    /// Hardly ever does anything.
    Sleeper,
    /// Holds transactions open for long.
    Holder,
    /// Does not log in by IAM.
    Password,
    /// LISTENs.
    Listener,
    /// Holds an advisory lock.
    Locker,
    /// Its application is exempt.
    Exempt,
    /// Connects past the proxy.
    Direct,
    /// Does not come back when it is closed.
    Fragile,
}

impl Kind {
    /// Whether the agent must leave it alone for what it is.
    pub fn left_alone(self) -> bool {
        matches!(self, Self::Password | Self::Listener | Self::Locker | Self::Exempt | Self::Direct)
    }
}

#[derive(Debug)]
pub struct Client {
    pub kind: Kind,
    pub backend: &'static str,
    pub session: Option<(usize, u64)>,
    /// Tells this life of its connection from earlier ones.
    pub life: u64,
    pub gone: bool,
}

pub struct World {
    pub now: Time,
    pub random: Random,
    pub instances: Vec<Instance>,
    pub admin: Admin,
    /// Whether an agent check has taken the server down.
    pub agent_down: BTreeMap<ServerId, bool>,
    pub clients: Vec<Client>,
    pub servers: Vec<ServerConfig>,
    /// Whether the databases say when a session began (PostgreSQL), or only for how long it
    /// has been doing what it does (the MySQL family).
    pub dated: bool,
    next_port: u16,
    next_id: u64,
    turn: HashMap<&'static str, usize>,
    /// The last time anything was wrong, or a person had set anything.
    pub trouble: Time,
    /// The last time anything else than what a person had set was wrong.
    pub shaken: Time,
    /// The last time a person set anything.
    pub hand: Time,
    pub connects: u64,
    texts: Texts,
}

/// Text that every row shares.
struct Texts {
    app: Arc<str>,
    legacy: Arc<str>,
    orders: Arc<str>,
    shop: Arc<str>,
    report: Arc<str>,
    fragile: Arc<str>,
    date: Arc<str>,
    pointers: [Arc<str>; 2],
}

pub fn instance_id(index: usize) -> InstanceId {
    InstanceId::new("orders", INSTANCES[index])
}

fn servers() -> Vec<ServerConfig> {
    let mut servers = Vec::new();
    for (backend, wanted) in [("write", WantedRole::Writer), ("read", WantedRole::Reader)] {
        for (index, name) in INSTANCES.iter().enumerate() {
            servers.push(ServerConfig {
                id: ServerId::new(ProxyIndex(0), backend, name),
                instance: instance_id(index),
                wanted,
                commandable: true,
            });
        }
    }
    servers
}

const MIX: [(Kind, u64); 10] = [
    (Kind::Pool, 60),
    (Kind::Sleeper, 12),
    (Kind::Restless, 4),
    (Kind::Holder, 4),
    (Kind::Password, 4),
    (Kind::Listener, 3),
    (Kind::Locker, 3),
    (Kind::Exempt, 4),
    (Kind::Direct, 3),
    (Kind::Fragile, 3),
];

impl World {
    pub fn new(seed: u64, clients: usize) -> Self {
        let mut random = Random::new(seed);
        let servers = servers();
        let instances = (0..INSTANCES.len())
            .map(|index| Instance {
                id: instance_id(index),
                writer: index == 0,
                timeline: 1,
                condition: Condition::Well,
                refuses: Refuses::Nobody,
                sessions: BTreeMap::new(),
                next_pid: 100,
            })
            .collect();
        let clients = (0..clients)
            .map(|_| {
                let mut ticket = random.below(100);
                let kind = MIX.iter().find(|(_, share)| {
                    let hit = ticket < *share;
                    ticket = ticket.saturating_sub(*share);
                    hit
                });
                let kind = kind.map_or(Kind::Pool, |(kind, _)| *kind);
                let backend = if random.chance(40) { "write" } else { "read" };
                Client { kind, backend, session: None, life: 0, gone: false }
            })
            .collect();
        let now = Time::AGENT_START + Duration::from_secs(1_000);
        Self {
            now,
            random,
            instances,
            admin: Admin::new(servers.iter().map(|server| server.id.clone())),
            agent_down: servers.iter().map(|server| (server.id.clone(), false)).collect(),
            clients,
            servers,
            dated: seed.is_multiple_of(2),
            next_port: 1_024,
            next_id: 1,
            turn: HashMap::new(),
            trouble: now,
            shaken: now,
            hand: now,
            connects: 0,
            texts: Texts {
                app: "app".into(),
                legacy: "legacy".into(),
                orders: "orders".into(),
                shop: "shop".into(),
                report: "report-nightly".into(),
                fragile: "fragile".into(),
                date: "date".into(),
                // Pointers are reused at once.
                pointers: ["0x55aa".into(), "0x55bb".into()],
            },
        }
    }

    /// Whether nothing is wrong with databases.
    pub fn well(&self) -> bool {
        self.instances
            .iter()
            .all(|instance| instance.condition == Condition::Well && instance.refuses == Refuses::Nobody)
    }

    /// Whether a person has set anything.
    pub fn handled(&self) -> bool {
        self.admin.truth.values().any(|truth| truth.persons)
    }

    /// Whether a server of a backend that no operator has drained has, in truth, a role that
    /// its clients can use.
    pub fn could_serve(&self, backend: &str) -> bool {
        self.servers.iter().filter(|config| *config.id.backend == *backend).any(|config| {
            let (index, wanted) = self.config(&config.id);
            !self.admin.truth[&config.id].persons
                && (wanted != WantedRole::Writer || self.instances[index].writer)
        })
    }

    pub fn config(&self, server: &ServerId) -> (usize, WantedRole) {
        let config = self.servers.iter().find(|config| config.id == *server).expect("a server");
        let index = INSTANCES.iter().position(|name| **name == *config.instance.instance.to_string());
        (index.expect("an instance"), config.wanted)
    }

    /// The servers of a backend that HAProxy sends new sessions to.
    pub fn selectable(&self, backend: &str) -> Vec<ServerId> {
        let taken = |server: &ServerId| self.admin.truth[server].flags.clear() && !self.agent_down[server];
        let of = self.servers.iter().filter(|config| *config.id.backend == *backend);
        of.map(|config| config.id.clone()).filter(taken).collect()
    }

    /// A client connects. `Err(true)` when HAProxy itself had nowhere to send it.
    pub fn connect(&mut self, client: usize) -> Result<(), bool> {
        let (backend, kind) = (self.clients[client].backend, self.clients[client].kind);
        let (index, server) = if kind == Kind::Direct {
            let writer = self.instances.iter().position(|instance| instance.writer);
            (writer.ok_or(false)?, None)
        } else {
            let open = self.selectable(backend);
            if open.is_empty() {
                return Err(true);
            }
            let turn = self.turn.entry(backend).or_default();
            *turn += 1;
            let server = open[*turn % open.len()].clone();
            (self.config(&server).0, Some(server))
        };
        let port = self.next_port;
        self.next_port = if port == u16::MAX { 1_024 } else { port + 1 };
        let now = self.now;
        let id = self.next_id;
        self.next_id += 1;
        let instance = &mut self.instances[index];
        if instance.condition != Condition::Well || instance.refuses == Refuses::Everybody {
            return Err(false);
        }
        self.connects += 1;
        let host = if server.is_some() { [10, 0, 0, 9] } else { [10, 0, 0, 77] };
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::from(host)), port);
        let pid = instance.next_pid;
        // Process ids come again, as they do.
        instance.next_pid = 100 + (pid - 99) % 30_000;
        let started_us = if self.dated {
            i64::try_from(now.since(Time::AGENT_START).as_micros()).expect("in range")
        } else {
            0
        };
        let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), port);
        let session = DbSession {
            key: BackendKey { pid, started_us },
            begin: now,
            client,
            address,
            through: server.map(|server| Through { server, id, source }),
            doing: Doing::Idle(now),
        };
        instance.sessions.insert(pid, session);
        self.clients[client].session = Some((index, pid));
        self.clients[client].life += 1;
        Ok(())
    }

    pub fn session_of(&mut self, client: usize) -> Option<&mut DbSession> {
        let (index, pid) = self.clients[client].session?;
        let session = self.instances[index].sessions.get_mut(&pid)?;
        (session.client == client).then_some(session)
    }

    /// Every session of an instance ends.
    pub fn crash(&mut self, index: usize) {
        self.instances[index].sessions.clear();
        self.instances[index].condition = Condition::Refusing;
    }

    // === what can be seen of it ===

    /// What an instance answers to the agent.
    pub fn role(&self, index: usize, login: bool) -> Result<RoleFacts, Fault> {
        let instance = &self.instances[index];
        let fault = match (instance.condition, instance.refuses) {
            (Condition::Refusing, _) => Some((Phase::Tcp, FaultKind::ConnectionRefused)),
            (Condition::Silent, _) => Some((Phase::Query, FaultKind::TimedOut)),
            (Condition::Well, Refuses::Nobody) => None,
            (Condition::Well, _) => login.then_some((Phase::Login, FaultKind::LoginRefused)),
        };
        match fault {
            Some((phase, kind)) => Err(Fault::new(phase, kind, "simulated")),
            None => Ok(RoleFacts {
                in_recovery: !instance.writer,
                read_only: false,
                follows_source: false,
                timeline: Some(instance.timeline),
                lag: None,
                agents: 1,
            }),
        }
    }

    /// The connection table, of all or of these; `None` when nothing answers.
    pub fn rows(&self, index: usize, only: Option<&[BackendKey]>) -> Option<Vec<ActivityRow>> {
        let instance = &self.instances[index];
        if instance.condition != Condition::Well {
            return None;
        }
        let row = |session: &DbSession| self.row(session);
        Some(match only {
            None => instance.sessions.values().map(row).collect(),
            Some(keys) => keys
                .iter()
                .filter_map(|key| instance.sessions.get(&key.pid).filter(|session| session.key == *key))
                .map(row)
                .collect(),
        })
    }

    fn row(&self, session: &DbSession) -> ActivityRow {
        let kind = self.clients[session.client].kind;
        let texts = &self.texts;
        ActivityRow {
            key: session.key,
            client: Some(session.address),
            user: if kind == Kind::Password { &texts.legacy } else { &texts.app }.clone(),
            iam_user: kind != Kind::Password,
            database_name: texts.orders.clone(),
            application: match kind {
                Kind::Exempt => &texts.report,
                Kind::Fragile => &texts.fragile,
                _ => &texts.shop,
            }
            .clone(),
            client_backend: true,
            superuser: false,
            age: match session.doing {
                _ if self.dated => Age::Exactly(self.now.since(session.begin)),
                Doing::Idle(since) => Age::AtLeast(self.now.since(since)),
                Doing::Transaction => Age::AtLeast(Duration::ZERO),
            },
            activity: match session.doing {
                Doing::Idle(since) => Activity::Idle(self.now.since(since)),
                Doing::Transaction => Activity::InTransaction,
            },
            last_statement: if kind == Kind::Listener {
                LastStatement::Listening
            } else {
                LastStatement::Other
            },
            advisory_lock: Some(kind == Kind::Locker),
        }
    }

    /// All sessions that go through the proxy, with ages in whole seconds.
    pub fn sweep(&self) -> Vec<ProxySession> {
        let all = self.instances.iter().flat_map(|instance| instance.sessions.values());
        all.filter_map(|session| {
            let through = session.through.as_ref()?;
            Some(ProxySession {
                key: ProxySessionKey::Haproxy(HaproxySessionKey {
                    worker: 1,
                    pointer: self.texts.pointers[usize::from(through.id % 2 == 0)].clone(),
                    id: through.id,
                    accepted: self.texts.date.clone(),
                }),
                server: through.server.clone(),
                source: Some(through.source),
                outgoing: session.address,
                peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1)), 5_432),
                age: Duration::from_secs(self.now.since(session.begin).as_secs()),
                old_worker: false,
            })
        })
        .collect()
    }
}
