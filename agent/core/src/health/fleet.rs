//! The fold over all instances, and the immutable picture made of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;

use super::{
    InstanceView, Observation, Remembered, Role, Verdict, WantedRole,
    instance::Instance,
    judge::{Member, Proof, Siblings, State},
};
use crate::{DatabaseName, InstanceId, InstanceName, ServerId, Time, freshness};

/// What to do when an instance refuses the agent's logins.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnAuthFailure {
    /// Keep it while all siblings refuse too; drain it when a sibling accepts.
    #[default]
    Auto,
    /// Keep it whatever siblings do.
    Keep,
    /// Take it down.
    Down,
}

/// The operator's choices about health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthRules {
    /// How often the agent logs in. A login that is older than a few of these no
    /// longer proves that clients could.
    pub probe_interval: Duration,
    /// Missed answers in a row after which silence counts.
    pub liveness_misses: u32,
    /// How often a writer is asked.
    pub liveness_writer: Duration,
    /// How often a reader is asked.
    pub liveness_reader: Duration,
    /// What refused logins do.
    pub on_auth_failure: OnAuthFailure,
    /// A replica further behind than this takes no new sessions while another can.
    pub max_lag: Option<Duration>,
}

impl HealthRules {
    /// How long what was seen against an instance counts: at least until the next probe, for
    /// where no connection is kept nothing else looks.
    pub(super) fn trouble_lasts(&self) -> Duration {
        freshness::TROUBLE.max(self.probe_interval * 2)
    }
}

impl Default for HealthRules {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_secs(30),
            liveness_misses: 3,
            liveness_writer: Duration::from_millis(250),
            liveness_reader: Duration::from_secs(1),
            on_auth_failure: OnAuthFailure::Auto,
            max_lag: None,
        }
    }
}

/// A server of a proxy: which instance it is and which role it wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerConfig {
    /// The proxy's entry.
    pub id: ServerId,
    /// The instance behind it.
    pub instance: InstanceId,
    /// The role its backend wants.
    pub wanted: WantedRole,
    /// Whether the proxy takes commands about it: drains, and closes of single sessions.
    /// HAProxy does. An Envoy only reads endpoints, and keeps the last ones when the agent
    /// dies, so that none but an operator begins a drain there.
    pub commandable: bool,
}

/// Everything there is to judge.
#[derive(Clone, Debug, Default)]
pub struct FleetConfig {
    /// All instances, with the rules of their database.
    pub instances: Vec<(InstanceId, HealthRules)>,
    /// All servers of all proxies.
    pub servers: Vec<ServerConfig>,
}

/// The fold: observations in, [`Fleet`] out.
#[derive(Clone, Debug)]
pub struct Health {
    databases: BTreeMap<DatabaseName, Database>,
    servers: Vec<ServerConfig>,
    /// Servers that the proxy sends no new sessions to, whatever their verdicts.
    drained: BTreeSet<ServerId>,
    /// The last verdicts, which tell since when a state has lasted, and what was said before.
    server_verdicts: BTreeMap<ServerId, Verdict>,
    role_verdicts: BTreeMap<(InstanceId, WantedRole), Verdict>,
}

#[derive(Clone, Debug)]
struct Database {
    instances: BTreeMap<InstanceName, Instance>,
    rules: HealthRules,
    last_writer: Option<InstanceName>,
}

/// The immutable picture of all instances and servers at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fleet {
    /// When it was made.
    pub at: Time,
    /// All instances, by name.
    #[serde(serialize_with = "crate::names::by_text")]
    pub instances: BTreeMap<InstanceId, InstanceView>,
    /// The verdict of each server.
    #[serde(serialize_with = "crate::names::by_text")]
    pub servers: BTreeMap<ServerId, Verdict>,
    /// The verdict of each instance for each role, for those who ask by instance (HTTP).
    #[serde(skip)]
    pub by_role: BTreeMap<(InstanceId, WantedRole), Verdict>,
}

impl Health {
    /// Starts from what a former agent remembered, if anything.
    pub fn new(config: FleetConfig, remembered: &[Remembered]) -> Self {
        let mut databases: BTreeMap<DatabaseName, Database> = BTreeMap::new();
        for (id, rules) in config.instances {
            let memory = remembered.iter().find(|memory| {
                memory.database == id.database.as_str() && memory.instance == id.instance.as_str()
            });
            let database = databases.entry(id.database).or_insert_with(|| Database {
                instances: BTreeMap::new(),
                rules,
                last_writer: None,
            });
            let known = database.last_writer.is_some();
            if memory.is_some_and(|it| it.last_writer || (it.role == Role::Writer && !known)) {
                database.last_writer = Some(id.instance.clone());
            }
            database.instances.insert(id.instance, Instance::new(memory));
        }
        Self {
            databases,
            servers: config.servers,
            drained: BTreeSet::new(),
            server_verdicts: BTreeMap::new(),
            role_verdicts: BTreeMap::new(),
        }
    }

    /// Takes over what an earlier one knows of those instances that are still the same.
    pub fn inherit(&mut self, mut earlier: Self, same: impl Fn(&InstanceId) -> bool) {
        for (name, database) in &mut self.databases {
            let Some(before) = earlier.databases.get_mut(name) else { continue };
            for (member, instance) in &mut database.instances {
                if same(&id(name, member))
                    && let Some(known) = before.instances.remove(member)
                {
                    *instance = known;
                }
            }
            let writer = before.last_writer.take();
            database.last_writer = writer.filter(|writer| same(&id(name, writer)));
        }
        // A proxy that was told something of a server goes by it until it is told otherwise.
        let (servers, before) = (&self.servers, &earlier.servers);
        earlier.server_verdicts.retain(|server, _| {
            let known = before.iter().find(|known| known.id == *server);
            known.is_some_and(|known| servers.contains(known) && same(&known.instance))
        });
        self.server_verdicts = earlier.server_verdicts;
        self.role_verdicts = earlier.role_verdicts;
    }

    /// The administratively drained servers: no other server is taken out in favour of one of them.
    /// Replaces those of before.
    pub fn set_drained(&mut self, servers: BTreeSet<ServerId>) {
        self.drained = servers;
    }

    /// Takes in one observation. One of an instance that is not configured is ignored.
    pub fn observe(&mut self, observation: &Observation) {
        let id = &observation.instance;
        let Some(Database { instances, rules, .. }) = self.databases.get_mut(&id.database) else { return };
        if let Some(instance) = instances.get_mut(&id.instance) {
            instance.observe(observation, rules);
        }
    }

    /// What is worth remembering across a restart.
    pub fn remember(&self) -> Vec<Remembered> {
        let all = self.databases.iter().flat_map(|(name, database)| {
            database.instances.iter().map(move |(member, facts)| (name, database, member, facts))
        });
        all.filter_map(|(name, database, member, facts)| {
            let (role, timeline) = facts.remembered()?;
            Some(Remembered {
                database: name.as_str().to_owned(),
                instance: member.as_str().to_owned(),
                role,
                timeline,
                last_writer: database.last_writer.as_ref() == Some(member),
            })
        })
        .collect()
    }

    /// How often to ask this instance whether it lives.
    pub fn cadence(&self, id: &InstanceId) -> Duration {
        self.databases
            .get(&id.database)
            .and_then(|database| Some(database.instances.get(&id.instance)?.cadence(&database.rules)))
            .unwrap_or(Duration::from_secs(1))
    }

    /// The picture at this moment.
    pub fn fleet(&mut self, now: Time) -> Fleet {
        let mut fleet =
            Fleet { at: now, instances: BTreeMap::new(), servers: BTreeMap::new(), by_role: BTreeMap::new() };
        for (name, database) in &mut self.databases {
            database.settle(now);
            let members = database.members();
            for wanted in [WantedRole::Writer, WantedRole::Reader, WantedRole::Any] {
                let verdicts = database.siblings(&members, now).judge(wanted);
                for (member, verdict) in members.iter().zip(verdicts) {
                    let key = (id(name, member.name), wanted);
                    let verdict = verdict.dated(self.role_verdicts.get(&key));
                    fleet.by_role.insert(key, verdict);
                }
            }
            for (member, instance) in &database.instances {
                fleet.instances.insert(id(name, member), instance.view().clone());
            }
        }
        for (key, servers) in backends(&self.servers) {
            let Some(database) = self.databases.get(key.database) else { continue };
            let members: Vec<Member<'_>> = servers.iter().map(|server| self.member(server)).collect();
            let verdicts = database.siblings(&members, now).judge(key.wanted);
            let another_writes =
                key.wanted == WantedRole::Writer && verdicts.iter().any(|verdict| verdict.state == State::Up);
            for (server, verdict) in servers.iter().zip(verdicts) {
                let before = self.server_verdicts.get(&server.id);
                let verdict = verdict.after(before, another_writes);
                fleet.servers.insert(server.id.clone(), verdict);
            }
        }
        self.server_verdicts.clone_from(&fleet.servers);
        self.role_verdicts.clone_from(&fleet.by_role);
        fleet
    }

    fn member<'a>(&self, server: &'a ServerConfig) -> Member<'a> {
        Member { name: &server.instance.instance, drained: self.drained.contains(&server.id) }
    }
}

impl Database {
    /// All instances, as the undrained members of one backend.
    fn members(&self) -> Vec<Member<'_>> {
        self.instances.keys().map(|name| Member { name, drained: false }).collect()
    }

    fn siblings<'a>(&'a self, members: &'a [Member<'a>], now: Time) -> Siblings<'a> {
        Siblings {
            instances: &self.instances,
            members,
            last_writer: self.last_writer.as_ref(),
            rules: &self.rules,
            now,
        }
    }

    /// Brings what is known up to this moment: notes who holds the writer's place while that
    /// is beyond doubt, and marks a conflict.
    fn settle(&mut self, now: Time) {
        for instance in self.instances.values_mut() {
            instance.forget_old_trouble(now, &self.rules);
        }
        let members = self.members();
        let siblings = self.siblings(&members, now);
        let conflict = siblings.conflict();
        let verdicts = siblings.judge(WantedRole::Writer);
        let writer = members
            .iter()
            .zip(verdicts)
            .find(|(_, verdict)| verdict.usable() && verdict.proof() == Proof::Proved)
            .map(|(member, _)| member.name.clone());
        if !conflict && writer.is_some() {
            self.last_writer = writer;
        }
        for instance in self.instances.values_mut() {
            let claims = instance.view().role == Some(Role::Writer);
            instance.set_conflict(conflict && claims);
        }
    }
}

/// The servers that stand in for one another: same proxy, backend, database and role.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Backend<'a> {
    proxy: usize,
    name: &'a str,
    database: &'a DatabaseName,
    wanted: WantedRole,
}

fn backends(servers: &[ServerConfig]) -> BTreeMap<Backend<'_>, Vec<&ServerConfig>> {
    let mut backends: BTreeMap<Backend<'_>, Vec<&ServerConfig>> = BTreeMap::new();
    for server in servers {
        let key = Backend {
            proxy: server.id.proxy,
            name: &server.id.backend,
            database: &server.instance.database,
            wanted: server.wanted,
        };
        backends.entry(key).or_default().push(server);
    }
    backends
}

fn id(database: &DatabaseName, instance: &InstanceName) -> InstanceId {
    InstanceId { database: database.clone(), instance: instance.clone() }
}
