//! The fold over all instances, and the immutable picture made of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::{
    AddressLogin, AddressState, AddressView, InstanceView, Observation, ReaderFallback, Remembered, Role,
    State, Verdict, VerdictReason, WantedRole,
    address::Addresses,
    config::{FleetConfig, HealthRules, ProxyView, Routing, ServerConfig},
    instance::Instance,
    judge::{Admission, Member, Siblings, Writer},
    refusal::{ConnectHistory, Tries},
};
use crate::{DatabaseName, InstanceId, InstanceName, ProxyIndex, ServerId, Time, freshness};

/// The fold: observations in, [`Fleet`] out.
#[derive(Clone, Debug)]
pub struct Health {
    databases: BTreeMap<DatabaseName, Database>,
    servers: Vec<ServerConfig>,
    routing: Routing,
    /// What is set for each server at its proxy; one that is missing has not been read.
    admissions: BTreeMap<ServerId, Admission>,
    /// Each proxy's own view, by its index.
    proxies: BTreeMap<ProxyIndex, ProxyView>,
    /// The proxies' counters of connections over the last seconds.
    connects: BTreeMap<ServerId, ConnectHistory>,
    addresses: Addresses,
    /// The servers whose proxy dials another address than the agent.
    dialled: BTreeMap<ServerId, AddressView>,
    /// The last verdicts, which tell since when a state has lasted, and what was said before.
    server_verdicts: BTreeMap<ServerId, Verdict>,
    role_verdicts: BTreeMap<(InstanceId, WantedRole), Verdict>,
    /// Servers that an earlier agent, or an earlier configuration, left DOWN at their proxy, and since
    /// when this one looks after them.
    left_down: BTreeMap<ServerId, Time>,
    /// Whether servers are released: none is kept down, except for its role in a writer backend.
    released: bool,
}

/// A server that is down, for the record of what has to be lifted when the agent ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    pub server: ServerId,
    pub reason: VerdictReason,
    /// It is in a writer backend and not the last known writer. It stays down when the agent ends: up,
    /// it would receive writes.
    pub by_role: bool,
}

#[derive(Clone, Debug)]
struct Database {
    instances: BTreeMap<InstanceName, Instance>,
    rules: HealthRules,
    last_writer: Option<InstanceName>,
    /// Former writers that have not answered as readers since another became the writer.
    deposed: BTreeSet<InstanceName>,
    /// Instances that claim to be the writer beside the last writer, and since when.
    beside: BTreeMap<InstanceName, Time>,
    /// Those that did so for so long that they are writers of another database.
    others: BTreeSet<InstanceName>,
}

/// The immutable picture of all instances and servers at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fleet {
    /// When it was made.
    pub at: Time,
    /// All instances, by name.
    #[serde(serialize_with = "crate::names::by_text")]
    pub instances: BTreeMap<InstanceId, InstanceView>,
    /// The verdict of each server, as proxies get it.
    #[serde(serialize_with = "crate::names::by_text")]
    pub servers: BTreeMap<ServerId, Verdict>,
    /// Where routing is only observed: the verdict that each server would have.
    #[serde(serialize_with = "crate::names::by_text")]
    pub observed: BTreeMap<ServerId, Verdict>,
    /// The servers whose proxy dials another address than the agent.
    #[serde(serialize_with = "crate::names::by_text")]
    pub addresses: BTreeMap<ServerId, AddressView>,
    /// The verdict of each instance for each role, for those who ask by instance (HTTP).
    #[serde(skip)]
    pub by_role: BTreeMap<(InstanceId, WantedRole), Verdict>,
}

impl Fleet {
    /// Nothing is known yet.
    pub fn empty(at: Time) -> Self {
        Self {
            at,
            instances: BTreeMap::new(),
            servers: BTreeMap::new(),
            observed: BTreeMap::new(),
            addresses: BTreeMap::new(),
            by_role: BTreeMap::new(),
        }
    }

    /// The verdict of each server by the evidence, also where routing is only observed.
    pub fn verdicts(&self) -> &BTreeMap<ServerId, Verdict> {
        if self.observed.is_empty() { &self.servers } else { &self.observed }
    }
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
                deposed: BTreeSet::new(),
                beside: BTreeMap::new(),
                others: BTreeSet::new(),
            });
            let known = database.last_writer.is_some();
            if memory.is_some_and(|it| it.last_writer || (it.role == Role::Writer && !known)) {
                database.last_writer = Some(id.instance.clone());
            }
            if memory.is_some_and(|it| it.another_database) {
                database.others.insert(id.instance.clone());
            }
            database.instances.insert(id.instance, Instance::new(memory));
        }
        Self {
            databases,
            servers: config.servers,
            routing: config.routing,
            admissions: BTreeMap::new(),
            proxies: BTreeMap::new(),
            connects: BTreeMap::new(),
            addresses: Addresses::default(),
            dialled: BTreeMap::new(),
            server_verdicts: BTreeMap::new(),
            role_verdicts: BTreeMap::new(),
            left_down: BTreeMap::new(),
            released: false,
        }
    }

    /// These servers are DOWN at their proxy by an earlier agent's answers. As long as something is known
    /// of them, that decides; otherwise they come up when an earlier observation would have expired.
    pub fn observe_left_down(&mut self, servers: impl IntoIterator<Item = ServerId>, now: Time) {
        self.left_down.extend(servers.into_iter().map(|server| (server, now)));
    }

    /// Whether servers are released from now on, because the agent is paused or stops.
    pub fn release(&mut self, released: bool) {
        self.released = released;
    }

    /// The servers that are down at their proxy: by the last picture, or by an earlier agent.
    pub fn downs(&self) -> Vec<Down> {
        let down = |server: &ServerConfig| {
            let verdict = self.server_verdicts.get(&server.id)?;
            (verdict.state == State::Down || self.left_down.contains_key(&server.id)).then(|| Down {
                server: server.id.clone(),
                reason: verdict.reason,
                by_role: !self.may_return(server),
            })
        };
        self.servers.iter().filter_map(down).collect()
    }

    /// Whether a server that is down may come up without proof that it is fit: in a writer backend only
    /// the last known writer, and not the writer among the readers where it never takes reads.
    fn may_return(&self, server: &ServerConfig) -> bool {
        let database = self.databases.get(&server.instance.database);
        let instance = behind(server, &self.dialled);
        match server.wanted {
            WantedRole::Writer => database.is_some_and(|database| database.may_be_writer(instance)),
            WantedRole::Reader => !database.is_some_and(|database| database.takes_no_reads(instance)),
            WantedRole::Any => true,
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
            database.deposed.extend(before.deposed.iter().filter(|member| same(&id(name, member))).cloned());
            let beside = before.beside.iter().filter(|(member, _)| same(&id(name, member)));
            database.beside.extend(beside.map(|(member, since)| (member.clone(), *since)));
            database.others.extend(before.others.iter().filter(|member| same(&id(name, member))).cloned());
        }
        // HAProxy keeps the last answer for a server until the next one.
        let (servers, before) = (&self.servers, &earlier.servers);
        earlier.server_verdicts.retain(|server, _| {
            let known = before.iter().find(|known| known.id == *server);
            known.is_some_and(|known| servers.contains(known) && same(&known.instance))
        });
        self.addresses = earlier.addresses;
        if self.routing == earlier.routing {
            self.server_verdicts = earlier.server_verdicts;
        }
        self.role_verdicts = earlier.role_verdicts;
        self.left_down.extend(earlier.left_down);
    }

    /// What operators have set for the servers at their proxies. Replaces what was known before.
    pub fn observe_admissions(&mut self, admissions: BTreeMap<ServerId, Admission>) {
        self.admissions = admissions;
    }

    /// What a proxy shows of itself, asked for at `at`. Replaces what it showed before.
    pub fn observe_proxy(&mut self, proxy: ProxyIndex, at: Time, view: ProxyView) {
        for (server, connects) in &view.connects {
            self.connects.entry(server.clone()).or_default().observe(at, *connects);
        }
        self.proxies.insert(proxy, view);
    }

    /// Whether the server's proxy showed it up the last time. An Envoy shows nothing, which counts as up.
    pub fn is_up(&self, server: &ServerId) -> bool {
        self.proxies.get(&server.proxy).is_none_or(|view| view.up.contains(server))
    }

    /// A login at an address went well or failed.
    pub fn observe_address(&mut self, login: AddressLogin) {
        self.addresses.observe(login);
    }

    /// A client began a session on this instance at `at`.
    pub fn observe_client_login(&mut self, id: &InstanceId, at: Time) {
        if let Some(instance) =
            self.databases.get_mut(&id.database).and_then(|database| database.instances.get_mut(&id.instance))
        {
            instance.client_login(at);
        }
    }

    /// An operator says which instance is the writer, where several claim it. Whether it is configured.
    pub fn choose_writer(&mut self, id: &InstanceId) -> bool {
        let Some(database) = self.databases.get_mut(&id.database) else { return false };
        let known = database.instances.contains_key(&id.instance);
        if known {
            database.last_writer = Some(id.instance.clone());
            database.deposed.remove(&id.instance);
            database.beside.clear();
            database.others.clear();
        }
        known
    }

    /// The last known writer of each database.
    pub fn writers(&self) -> impl Iterator<Item = (&DatabaseName, &InstanceName)> {
        self.databases.iter().filter_map(|(name, database)| Some((name, database.last_writer.as_ref()?)))
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
                another_database: database.others.contains(member),
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
        let mut fleet = Fleet::empty(now);
        self.look_at_addresses(now);
        fleet.addresses.clone_from(&self.dialled);
        for (name, database) in &mut self.databases {
            let up = up_writers(name, &self.servers, &self.proxies);
            database.weigh_refusals(name, &self.servers, &self.dialled, &self.connects, now);
            database.settle(now, &up);
            let members = database.members();
            for wanted in [WantedRole::Writer, WantedRole::Reader, WantedRole::Any] {
                // There is no backend that could be empty.
                let verdicts = database.siblings(&members, true, now).judge(wanted, &[]);
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
            // An aggregate cluster falls back to RDS's own name.
            let fallback = servers.iter().all(|server| !server.commandable)
                || self.proxies.get(&key.proxy).is_some_and(|view| view.fallbacks.contains(key.name));
            let before: Vec<Option<Verdict>> =
                servers.iter().map(|server| self.server_verdicts.get(&server.id).copied()).collect();
            let verdicts = database.siblings(&members, fallback, now).judge(key.wanted, &before);
            for ((server, verdict), before) in servers.iter().zip(verdicts).zip(&before) {
                let lasts = database.rules.trouble_lasts();
                let left_down = self.left_down.get(&server.id);
                let forgotten = left_down.is_some_and(|since| self.released || now.since(*since) > lasts);
                let may_return = self.may_return(server);
                let verdict = verdict
                    .left_down(forgotten && may_return)
                    .after(before.as_ref(), may_return)
                    .released(self.released && may_return, before.as_ref(), now);
                fleet.servers.insert(server.id.clone(), verdict);
            }
        }
        self.left_down.retain(|server, _| fleet.servers.get(server).is_some_and(|verdict| !verdict.known()));
        self.server_verdicts.clone_from(&fleet.servers);
        if self.routing == Routing::Observe {
            fleet.observed = std::mem::take(&mut fleet.servers);
            let neutral = |verdict: &Verdict| Verdict {
                state: State::Unknown,
                reason: VerdictReason::RoutingObserved,
                since: verdict.since,
            };
            fleet.servers =
                fleet.observed.iter().map(|(id, verdict)| (id.clone(), neutral(verdict))).collect();
        }
        self.role_verdicts.clone_from(&fleet.by_role);
        fleet
    }

    fn member<'a>(&'a self, server: &'a ServerConfig) -> Member<'a> {
        // Only the agent's own words close an endpoint of an Envoy.
        let unseen = if server.commandable { Admission::Unseen } else { Admission::Open };
        let admission = self.admissions.get(&server.id).copied().unwrap_or(unseen);
        let address = self.dialled.get(&server.id).map_or(AddressState::Proved, |view| view.state);
        Member { name: behind(server, &self.dialled), admission, address }
    }

    fn look_at_addresses(&mut self, now: Time) {
        let (mut dialled, mut known) = (BTreeMap::new(), Vec::new());
        for server in &self.servers {
            let view = self.proxies.get(&server.id.proxy);
            let Some(address) = view.and_then(|view| view.dials.get(&server.id)).copied() else { continue };
            let Some(database) = self.databases.get(&server.instance.database) else { continue };
            let lasts = database.rules.trouble_lasts();
            let history = self.connects.get(&server.id);
            known.push((server.instance.clone(), address));
            if let Some(view) = self.addresses.look(server, address, history, now, lasts) {
                dialled.insert(server.id.clone(), view);
            }
        }
        self.addresses.keep(&known);
        self.dialled = dialled;
    }
}

impl Database {
    /// Whether this is the last known writer, or the only instance that can be.
    fn may_be_writer(&self, name: &InstanceName) -> bool {
        let reader = |name: &InstanceName| {
            self.instances.get(name).is_some_and(|instance| instance.view().role == Some(Role::Reader))
        };
        !reader(name)
            && match &self.last_writer {
                Some(last) => last == name,
                None => self.instances.keys().all(|other| other == name || reader(other)),
            }
    }

    /// Whether this is the writer, and the operator lets no writer serve reads.
    fn takes_no_reads(&self, name: &InstanceName) -> bool {
        let view = self.instances.get(name).map(Instance::view);
        self.rules.reader_fallback == ReaderFallback::None
            && view.is_some_and(|view| view.role == Some(Role::Writer))
    }

    /// All instances, as if they were the members of one backend.
    fn members(&self) -> Vec<Member<'_>> {
        self.instances
            .keys()
            .map(|name| Member { name, admission: Admission::Open, address: AddressState::Proved })
            .collect()
    }

    fn siblings<'a>(&'a self, members: &'a [Member<'a>], fallback: bool, now: Time) -> Siblings<'a> {
        Siblings {
            instances: &self.instances,
            members,
            last_writer: self.last_writer.as_ref(),
            deposed: &self.deposed,
            others: &self.others,
            fallback,
            rules: &self.rules,
            now,
        }
    }

    /// Compares the agent's refused connections with those of the proxies.
    fn weigh_refusals(
        &mut self,
        database: &DatabaseName,
        servers: &[ServerConfig],
        dialled: &BTreeMap<ServerId, AddressView>,
        connects: &BTreeMap<ServerId, ConnectHistory>,
        now: Time,
    ) {
        for (name, instance) in &mut self.instances {
            let Some(since) = instance.refused_since() else {
                instance.weigh_refusal(false, None);
                continue;
            };
            let histories = servers
                .iter()
                .filter(|server| server.instance.database == *database && behind(server, dialled) == name)
                .filter_map(|server| connects.get(&server.id))
                .filter(|history| history.latest().is_some_and(|at| now.since(at) <= freshness::SOURCE_LOST));
            let tries: Vec<Option<Tries>> = histories.map(|history| history.tries(since)).collect();
            let served = tries.contains(&Some(Tries::Served));
            let all = if served { Some(Tries::Served) } else { tries.iter().flatten().next().copied() };
            instance.weigh_refusal(!tries.is_empty(), all);
        }
    }

    /// Brings what is known up to this moment: notes the writer while it is beyond doubt, and marks a
    /// conflict. `up` are the instances that take writes at the proxies now: without any memory, the
    /// proxies' own state is the best one there is.
    fn settle(&mut self, now: Time, up: &BTreeSet<InstanceName>) {
        for instance in self.instances.values_mut() {
            instance.forget_old_trouble(now, &self.rules);
        }
        let claimants = self.instances.values().filter(|instance| instance.view().claims_writer()).count();
        if self.last_writer.is_none() && claimants > 1 && up.len() == 1 {
            self.last_writer = up.first().cloned();
        }
        let logins: Vec<(InstanceName, Time)> = self
            .instances
            .iter()
            .filter_map(|(name, instance)| Some((name.clone(), instance.view().last_login?)))
            .collect();
        for (name, instance) in &mut self.instances {
            let siblings = logins.iter().filter(|(other, _)| other != name);
            instance.siblings_accepted(siblings.map(|(_, login)| *login));
        }
        self.note_claims();
        let members = self.members();
        let writer = self.siblings(&members, true, now).writer();
        let conflict = claimants > 1 && writer.conflict();
        let settled = match writer {
            Writer::Proved(name) | Writer::Newest(name) => Some(name.clone()),
            _ => None,
        };
        let proved = settled.as_ref().and_then(|writer| self.instances.get(writer)?.view().last_proof);
        for (name, instance) in &mut self.instances {
            let view = instance.view();
            let claims = view.claims_writer();
            if view.role == Some(Role::Reader) && view.usable() {
                self.deposed.remove(name);
            } else if view.role == Some(Role::Writer)
                && settled.as_ref().is_some_and(|writer| writer != name)
                // One that only has not lost its claim yet, by a missed answer, deposes none that claims since.
                && proved > view.last_proof
            {
                self.deposed.insert(name.clone());
            }
            instance.set_conflict(conflict && claims);
        }
        if let Some(writer) = settled {
            self.deposed.remove(&writer);
            if self.last_writer.as_ref() != Some(&writer) {
                self.beside.clear();
                self.others.clear();
            }
            self.last_writer = Some(writer);
        }
    }

    /// Notes which instances claim to be the writer beside the last writer, since when, and which of them are
    /// writers of another database by now.
    fn note_claims(&mut self) {
        let Some(last) = &self.last_writer else {
            self.others.clear();
            return self.beside.clear();
        };
        let last_proof = self.instances.get(last).and_then(|last| last.view().last_proof);
        for (name, instance) in &self.instances {
            let view = instance.view();
            if name == last || view.role != Some(Role::Writer) {
                self.beside.remove(name);
                self.others.remove(name);
            } else if view.claims_writer()
                && let Some(proof) = view.last_proof
            {
                let since = *self.beside.entry(name.clone()).or_insert(proof);
                if last_proof.is_some_and(|proof| proof.since(since) >= freshness::TWO_WRITERS) {
                    self.others.insert(name.clone());
                }
            }
        }
        self.beside.retain(|name, _| self.instances.contains_key(name));
    }
}

/// The instance behind the address that the proxy dials.
fn behind<'a>(server: &'a ServerConfig, dialled: &'a BTreeMap<ServerId, AddressView>) -> &'a InstanceName {
    dialled.get(&server.id).map_or(&server.instance.instance, |view| &view.instance.instance)
}

/// The instances of a database that its proxies send writes to.
fn up_writers(
    database: &DatabaseName,
    servers: &[ServerConfig],
    proxies: &BTreeMap<ProxyIndex, ProxyView>,
) -> BTreeSet<InstanceName> {
    servers
        .iter()
        .filter(|server| server.wanted == WantedRole::Writer && server.instance.database == *database)
        .filter(|server| proxies.get(&server.id.proxy).is_some_and(|view| view.up.contains(&server.id)))
        .map(|server| server.instance.instance.clone())
        .collect()
}

/// The servers that serve the same clients: same proxy, backend, database and role.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Backend<'a> {
    proxy: ProxyIndex,
    name: &'a Arc<str>,
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
