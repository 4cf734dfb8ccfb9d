//! The planner: once a tick, from ledger and fleet to a plan.
//!
//! It keeps what a plan needs to know of earlier ones: commands under way,
//! tries that failed, drains, paused groups, how long an instance has been
//! demoted. It reads no clock and does no I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use super::{
    AdminFlags, AdminWord, AgentCheck, Breaker, Budget, CloseVia, Command, CommandId, DrainPhase, Drains,
    Group, Hold, HoldReason, How, Mode, Network, Outcome, Plan, Policy, Purpose, Retire, Retired, Scope,
    Subject,
    breaker::Login,
    drain::Cohort,
    limit_of,
    retire::{Context, Stance, consider},
};
use crate::{
    DatabaseName, InstanceId, ServerId, Time,
    health::{Fleet, InstanceView, Role, ServerConfig, State, WantedRole},
    session::{BackendKey, Join, Ledger, ProxySession, Session},
};

/// A plan is made at least this often, so that a longer gap means the agent was frozen.
const TICK: Duration = Duration::from_secs(1);

/// A gap between two plans after which nothing seen before it is believed.
const FROZEN: Duration = Duration::from_secs(5);

/// Sessions of one instance that are looked at closely at once.
const FOCUS: usize = 500;

/// How often sessions are looked at again while some are watched.
const WATCH: Duration = Duration::from_millis(100);

/// Between two listings of an instance's sessions while closed clients are awaited.
const POLL: Duration = Duration::from_secs(1);

/// Between two listings of a proxy's sessions.
const SWEEP: Duration = Duration::from_secs(1);

/// Sessions that no listing has shown are looked for again after this.
const SWEEP_AGAIN: Duration = Duration::from_secs(30);

/// A listing is wanted this long before a session that it lacks is due.
const SWEEP_AHEAD: Duration = Duration::from_secs(3);

/// After a denied close, the instance gets no more for this long.
const DENIED: Duration = Duration::from_secs(60);

/// A command that nobody answered is given up after this.
const LOST: Duration = Duration::from_secs(30);

/// A session, by the place of its instance among all and its identity there.
type SessionId = (usize, BackendKey);

/// The planner.
#[derive(Debug)]
pub struct Planner {
    policy: Policy,
    servers: BTreeMap<ServerId, ServerConfig>,
    instances: BTreeMap<InstanceId, usize>,
    drains: Drains,
    breaker: Breaker,
    paused: bool,
    credentials_ill: bool,
    next_id: CommandId,
    in_flight: HashMap<SessionId, Flight>,
    tried: HashMap<SessionId, Time>,
    denied: BTreeMap<InstanceId, Time>,
    demoted: BTreeMap<InstanceId, Time>,
    last_plan: Option<Time>,
    trusted_since: Time,
    events: Vec<Group>,
    /// What the last plan held, why, and since when.
    held: HashMap<SessionId, (HoldReason, Time)>,
    held_servers: HashMap<ServerId, (HoldReason, Time)>,
}

#[derive(Debug)]
struct Flight {
    since: Time,
    group: Group,
    had_others: bool,
}

/// A session that may be closed now.
struct Candidate<'a> {
    id: SessionId,
    session: Session<'a>,
    client: SocketAddr,
    proxy: &'a ProxySession,
    how: How,
    purpose: Purpose,
    age: Duration,
    limit: Duration,
}

/// What one pass over the ledger collects.
#[derive(Default)]
struct Pass<'a> {
    candidates: Vec<Candidate<'a>>,
    holds: Vec<Hold>,
    watched: BTreeMap<&'a InstanceId, Vec<(Duration, BackendKey)>>,
    /// What holds for each server, and its sessions, in the ledger's order.
    facts: Vec<ServerFacts>,
    cohorts: Vec<Cohort>,
    /// The latest begin of a session of this instance that no proxy has shown.
    unjoined: BTreeMap<&'a InstanceId, Time>,
    due: usize,
    wake: Option<Time>,
    /// Whether any group is paused at all.
    breaker_open: bool,
}

/// What holds for all sessions through one server.
#[derive(Clone, Default)]
struct ServerFacts {
    proxy_seen: Option<Time>,
    can_come_back: bool,
    demoted_for: Option<Duration>,
}

impl Planner {
    /// A planner for these servers.
    pub fn new(policy: Policy, servers: &[ServerConfig]) -> Self {
        let instances: BTreeSet<&InstanceId> = servers.iter().map(|server| &server.instance).collect();
        Self {
            instances: instances.into_iter().cloned().zip(0..).collect(),
            policy,
            drains: Drains::new(servers),
            servers: servers.iter().map(|server| (server.id.clone(), server.clone())).collect(),
            breaker: Breaker::default(),
            paused: false,
            credentials_ill: false,
            next_id: 1,
            in_flight: HashMap::new(),
            tried: HashMap::new(),
            denied: BTreeMap::new(),
            demoted: BTreeMap::new(),
            last_plan: None,
            trusted_since: Time::AGENT_START,
            events: Vec::new(),
            held: HashMap::new(),
            held_servers: HashMap::new(),
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Another policy from now on. Drains, pauses and what was tried stay.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// The drains of all servers.
    pub fn drains(&self) -> &Drains {
        &self.drains
    }

    /// The breaker's groups.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Whether all acting is paused.
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// Groups that the breaker has paused since this was last asked.
    pub fn take_paused_groups(&mut self) -> Vec<Group> {
        std::mem::take(&mut self.events)
    }

    /// Stops all acting at once; drains are taken back at the next tick.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Acts again, with a clean slate for paused groups.
    pub fn resume(&mut self) {
        self.paused = false;
        self.breaker.reset();
        self.denied.clear();
    }

    /// Takes over a drain that a former agent recorded: it is taken back.
    pub fn adopt(&mut self, server: &ServerId, now: Time) {
        self.drains.adopt(server, &self.policy, now);
    }

    /// Drains a server at an operator's word, above the capacity floor.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn request_drain(&mut self, server: &ServerId, fleet: &Fleet, now: Time) -> Result<(), HoldReason> {
        self.drains.request(server, fleet, &self.policy, now)
    }

    /// Takes back one drain of the agent's own, or all.
    pub fn release_drains(&mut self, server: Option<&ServerId>, now: Time) -> Vec<Command> {
        self.drains.release(server, &self.policy, now)
    }

    /// Whether the agent can get credentials. While it cannot, clients may not either.
    pub fn observe_credentials(&mut self, well: bool) {
        self.credentials_ill = !well;
    }

    /// The proxy's own word on a server's admin flags, asked for at `at`.
    pub fn observe_admin(&mut self, server: &ServerId, at: Time, flags: AdminFlags) -> Option<Command> {
        self.drains.observe(server, at, flags, &self.policy)
    }

    /// An agent-check answer with an admin word was read by the proxy.
    pub fn delivered(&mut self, server: &ServerId, word: AdminWord) {
        self.drains.delivered(server, word);
    }

    /// What became of a command.
    pub fn outcome(&mut self, now: Time, outcome: &Outcome) {
        match outcome {
            Outcome::Drain { server, sent } => self.drains.sent(server, *sent, now),
            Outcome::Undrain { server, sent } => self.drains.ended(server, *sent),
            Outcome::Retire { instance, key, retired, .. } => {
                let Some(place) = self.instances.get(instance) else { return };
                let session = (*place, *key);
                let flight = self.in_flight.remove(&session);
                match (retired, flight) {
                    // From the command on: its client may be back before this is known.
                    (Retired::Closed, Some(Flight { group, had_others, since })) => {
                        self.breaker.closed(group, instance.clone(), had_others, since);
                    }
                    (Retired::Denied, _) => {
                        self.denied.insert(instance.clone(), now);
                    }
                    _ => {}
                }
                self.tried.insert(session, now);
            }
        }
    }

    /// What an agent-check answer has to say of a server. The steady answer is
    /// `up` or `down`, alone: any admin word would overwrite a person's.
    pub fn desired(&self, server: &ServerId, fleet: &Fleet, now: Time) -> AgentCheck {
        let health = fleet.servers.get(server).and_then(|verdict| match verdict.state {
            // A drain goes by the admin state, with its record, or not at all.
            State::Up | State::Drain => Some(Ok(())),
            State::Down => Some(Err(verdict.reason.to_string())),
            State::Unknown => None,
        });
        AgentCheck { health, admin: self.drains.word(server, now) }
    }

    /// The plan for this moment.
    pub fn plan(&mut self, now: Time, ledger: &Ledger, fleet: &Fleet, budget: &Budget) -> Plan {
        self.settle(now, ledger, fleet);
        let mut pass = self.survey(now, ledger, fleet);
        let cohorts = ledger.servers().iter().cloned().zip(pass.cohorts.iter().copied()).collect();
        let (mut commands, server_holds) = self.drains.tick(now, fleet, &cohorts, &self.policy, self.paused);
        self.fire(now, &mut pass, ledger, budget, &mut commands);
        let answered = |instance: &InstanceId| polled_since(instance, ledger, fleet);
        self.events.extend(self.breaker.expire(&self.policy.breaker, now, answered));

        let sweep = self.sweep(now, &pass, ledger);
        let poll = self.poll(now, ledger, fleet);
        let watching = !pass.watched.is_empty();
        let wake = pass.wake.into_iter().chain(watching.then_some(now + WATCH)).min();
        let focus = pass
            .watched
            .into_iter()
            .map(|(instance, mut sessions)| {
                sessions.sort_unstable_by(|one, other| other.cmp(one));
                sessions.truncate(FOCUS);
                (instance.clone(), sessions.into_iter().map(|(_, key)| key).collect())
            })
            .collect();
        Plan {
            at: now,
            commands,
            holds: self.remember_holds(now, pass.holds, server_holds),
            next_wake: wake.unwrap_or(now + TICK).clamp(now + Duration::from_millis(1), now + TICK),
            focus,
            poll,
            sweep,
            sessions: ledger.len(),
            due: pass.due,
        }
    }

    /// Dates each hold: since when it has been held for the same reason.
    fn remember_holds(
        &mut self,
        now: Time,
        mut holds: Vec<Hold>,
        server_holds: Vec<(ServerId, HoldReason)>,
    ) -> Vec<Hold> {
        let since = |before: Option<&(HoldReason, Time)>, reason| match before {
            Some((last, since)) if *last == reason => *since,
            _ => now,
        };
        let mut held = HashMap::with_capacity(holds.len());
        for hold in &mut holds {
            if let Subject::Session { instance, key, .. } = &hold.subject {
                let Some(place) = self.instances.get(instance) else { continue };
                let session = (*place, *key);
                hold.since = since(self.held.get(&session), hold.reason);
                held.insert(session, (hold.reason, hold.since));
            }
        }
        self.held = held;
        let mut held = HashMap::with_capacity(server_holds.len());
        for (server, reason) in server_holds {
            let since = since(self.held_servers.get(&server), reason);
            held.insert(server.clone(), (reason, since));
            holds.push(Hold { subject: Subject::Server(server), reason, since });
        }
        self.held_servers = held;
        holds
    }

    /// Brings what is remembered up to this moment.
    fn settle(&mut self, now: Time, ledger: &Ledger, fleet: &Fleet) {
        if self.last_plan.is_some_and(|last| now.since(last) > FROZEN) {
            self.trusted_since = now;
        }
        self.last_plan = Some(now);
        self.in_flight.retain(|_, flight| now.since(flight.since) <= LOST);
        self.denied.retain(|_, at| now.since(*at) <= DENIED);
        if self.tried.len() > 2 * ledger.len() + 1_000 {
            let live: HashSet<SessionId> = ledger
                .instances()
                .filter_map(|instance| Some((instance, *self.instances.get(instance)?)))
                .flat_map(|(instance, place)| {
                    ledger.sessions_of(instance).map(move |session| (place, session.row.key))
                })
                .collect();
            self.tried.retain(|session, _| live.contains(session));
        }
        for (instance, view) in &fleet.instances {
            if view.role == Some(Role::Reader) && view.usable() {
                self.demoted.entry(instance.clone()).or_insert(now);
            } else {
                self.demoted.remove(instance);
            }
        }
    }

    /// One pass over all sessions.
    fn survey<'a>(&mut self, now: Time, ledger: &'a Ledger, fleet: &Fleet) -> Pass<'a> {
        let mut pass = Pass {
            breaker_open: self.breaker.open().next().is_some(),
            facts: self.facts(now, ledger, fleet),
            cohorts: vec![Cohort::default(); ledger.servers().len()],
            ..Pass::default()
        };
        let waits_since = self.breaker.waits_since();
        let youngest_due = self.policy.max_age.mul_f64((1.0 - self.policy.jitter).max(0.0));
        let youngest_due = youngest_due.saturating_sub(self.policy.window()).saturating_sub(SWEEP_AHEAD);
        let maybe_demoted = self.policy.demotion_grace.is_some();
        for instance in ledger.instances() {
            let Some(&place) = self.instances.get(instance) else { continue };
            for session in ledger.sessions_of(instance) {
                if waits_since.is_some_and(|since| session.begin >= since) {
                    self.breaker.seen(&login_of(&session));
                }
                if let Some(cohort) = session.server.and_then(|server| pass.cohorts.get_mut(server)) {
                    cohort.all += 1;
                }
                let due = session.begin + youngest_due;
                if now < due && !maybe_demoted {
                    pass.wake_at(due);
                    continue;
                }
                if session.server.is_none() && session.row.client.is_some() {
                    let latest = pass.unjoined.entry(session.instance).or_insert(session.begin);
                    *latest = session.begin.max(*latest);
                }
                self.weigh(now, (place, session.row.key), session, &mut pass);
            }
        }
        pass
    }

    /// What holds for each server, in the ledger's order.
    fn facts(&self, now: Time, ledger: &Ledger, fleet: &Fleet) -> Vec<ServerFacts> {
        let open_backends = open_backends(&self.servers, fleet, now, self.trusted_since);
        let facts = |id: &ServerId| {
            let config = self.servers.get(id)?;
            let wants_writer = config.wanted == WantedRole::Writer;
            let demoted = self.demoted.get(&config.instance).filter(|_| wants_writer);
            Some(ServerFacts {
                proxy_seen: ledger.proxy_seen(id.proxy),
                can_come_back: !self.credentials_ill && open_backends.contains(&(id.proxy, &*id.backend)),
                demoted_for: demoted.map(|since| now.since(*since)),
            })
        };
        ledger.servers().iter().map(|id| facts(id).unwrap_or_default()).collect()
    }

    /// One session that is due, or nearly.
    fn weigh<'a>(&self, now: Time, id: SessionId, session: Session<'a>, pass: &mut Pass<'a>) {
        let joined = match session.join {
            Join::Joined(proxy) => Some(proxy),
            Join::NotJoined | Join::Disagree => None,
        };
        let facts = session.server.and_then(|server| pass.facts.get(server));
        let context = Context {
            now,
            policy: &self.policy,
            paused: self.paused,
            trusted_since: self.trusted_since,
            proxy_seen: facts.and_then(|facts| facts.proxy_seen),
            can_come_back: facts.is_some_and(|facts| facts.can_come_back),
            demoted_for: facts.and_then(|facts| facts.demoted_for),
            tried: self.tried.get(&id).copied(),
        };
        let age = now.since(session.begin);
        let limit = limit_of(&self.policy, &session.row.key);
        let stance = match consider(&session, &context) {
            Stance::NotDue(at) => {
                pass.wake_at(at);
                return;
            }
            _ if self.in_flight.contains_key(&id) => {
                pass.due += 1;
                pass.count_due(&session);
                return;
            }
            Stance::Fire(_) if self.denied.contains_key(session.instance) => {
                Stance::Hold { reason: HoldReason::Denied, watch: false, until: None }
            }
            // One held back with its group need not be watched for a quiet moment.
            Stance::Fire(_)
            | Stance::Hold { reason: HoldReason::WaitingForQuiet | HoldReason::NeverQuiet, .. }
                if pass.breaker_open
                    && joined.is_some_and(|proxy| {
                        self.breaker.paused(&group_of(&session, proxy), &self.policy.breaker, now)
                    }) =>
            {
                Stance::Hold { reason: HoldReason::Breaker, watch: false, until: None }
            }
            stance => stance,
        };
        pass.due += 1;
        match (stance, joined, session.row.client) {
            (Stance::Fire(how), Some(proxy), Some(client)) => {
                pass.count_due(&session);
                let purpose = if context.demoted() { Purpose::Failover } else { Purpose::Close };
                pass.candidates.push(Candidate { id, session, client, proxy, how, purpose, age, limit });
            }
            (Stance::Hold { reason, watch, until }, ..) => {
                if watch {
                    pass.watch(&session, age.saturating_sub(limit));
                }
                if a_drain_would_help(reason) {
                    pass.count_due(&session);
                }
                if let Some(until) = until {
                    pass.wake_at(until);
                }
                pass.hold(now, &session, age, limit, reason);
            }
            (Stance::Fire(_) | Stance::NotDue(_), ..) => {}
        }
    }

    /// Turns candidates into commands, most overdue first, as far as the budget goes.
    fn fire(
        &mut self,
        now: Time,
        pass: &mut Pass<'_>,
        ledger: &Ledger,
        budget: &Budget,
        commands: &mut Vec<Command>,
    ) {
        let mut candidates = std::mem::take(&mut pass.candidates);
        if candidates.is_empty() {
            return;
        }
        candidates.sort_by_key(|one| {
            let overdue = one.age.saturating_sub(one.limit);
            (std::cmp::Reverse((overdue, one.age)), one.session.row.key)
        });
        let mut free: BTreeMap<(usize, Purpose), (u32, Time)> = BTreeMap::new();
        let mut under_way: HashMap<Group, usize> = HashMap::new();
        for flight in self.in_flight.values() {
            *under_way.entry(flight.group.clone()).or_default() += 1;
        }
        for one in candidates {
            let instance = one.session.instance;
            let overdue = one.age.saturating_sub(one.limit);
            let (places, next_free) = free.entry((one.id.0, one.purpose)).or_insert_with(|| {
                (budget.free(instance, one.purpose, now), budget.next_free(instance, one.purpose, now))
            });
            if *places == 0 {
                pass.watch(&one.session, overdue);
                pass.wake_at(*next_free);
                pass.hold(now, &one.session, one.age, one.limit, HoldReason::OverBudget);
                continue;
            }
            let group = group_of(&one.session, one.proxy);
            let others = under_way.get(&group).copied().unwrap_or(0);
            if !self.breaker.allows(&group, others, &self.policy.breaker, now) {
                pass.hold(now, &one.session, one.age, one.limit, HoldReason::Breaker);
                continue;
            }
            pass.watch(&one.session, overdue);
            *places -= 1;
            *under_way.entry(group.clone()).or_default() += 1;
            let had_others = self.breaker.comes_back(&group) || has_others(&group, &one.session, ledger);
            let key = one.session.row.key;
            self.in_flight.insert(one.id, Flight { since: now, group, had_others });
            let via = match one.how {
                How::Quiet(_) => self.policy.close_via,
                // Only the database can tell the moment a session goes idle.
                How::Catch(_) => CloseVia::Database,
                // The database's guard closes nothing that is busy.
                How::Force => CloseVia::Proxy,
            };
            commands.push(Command::Retire(Box::new(Retire {
                id: self.next_id,
                instance: instance.clone(),
                key,
                client: one.client,
                user: one.session.row.user.clone(),
                iam_only: self.policy.scope == Scope::Iam,
                proxy: one.proxy.clone(),
                via,
                how: one.how,
                purpose: one.purpose,
                age: one.age,
                limit: one.limit,
            })));
            self.next_id += 1;
        }
    }

    /// The instances to list again: those at which closed clients are expected.
    fn poll(&self, now: Time, ledger: &Ledger, fleet: &Fleet) -> BTreeSet<InstanceId> {
        let databases: BTreeSet<&DatabaseName> =
            self.breaker.awaited().map(|instance| &instance.database).collect();
        ledger
            .instances()
            .filter(|instance| databases.contains(&instance.database))
            .filter(|instance| fleet.instances.get(*instance).is_some_and(InstanceView::usable))
            .filter(|instance| ledger.polled(instance).is_none_or(|polled| now.since(polled) >= POLL))
            .cloned()
            .collect()
    }

    /// The proxies to list again: those of instances with sessions that are nearly due and not joined.
    fn sweep(&self, now: Time, pass: &Pass<'_>, ledger: &Ledger) -> BTreeSet<usize> {
        let mut proxies = BTreeSet::new();
        for server in self.servers.values() {
            let Some(latest) = pass.unjoined.get(&server.instance) else { continue };
            // A listing made well after a session began, and without it, has said all there is.
            let wanted = ledger.proxy_swept(server.id.proxy).is_none_or(|swept| {
                now.since(swept) >= SWEEP && (swept < *latest + SWEEP * 2 || now.since(swept) >= SWEEP_AGAIN)
            });
            if wanted {
                proxies.insert(server.id.proxy);
            }
        }
        proxies
    }
}

impl<'a> Pass<'a> {
    fn watch(&mut self, session: &Session<'a>, overdue: Duration) {
        self.watched.entry(session.instance).or_default().push((overdue, session.row.key));
    }

    fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |other| other.min(at)));
    }

    fn count_due(&mut self, session: &Session<'_>) {
        if let Some(cohort) = session.server.and_then(|server| self.cohorts.get_mut(server)) {
            cohort.due += 1;
        }
    }

    fn hold(&mut self, now: Time, session: &Session<'_>, age: Duration, limit: Duration, reason: HoldReason) {
        let subject = Subject::Session {
            instance: session.instance.clone(),
            key: session.row.key,
            user: session.row.user.clone(),
            age,
            limit,
        };
        self.holds.push(Hold { subject, reason, since: now });
    }
}

/// Held sessions that would go, or go sooner, if no new ones came. A session whose
/// source is lost, or whose client could not come back, gives no reason to drain.
fn a_drain_would_help(reason: HoldReason) -> bool {
    use HoldReason as R;
    matches!(
        reason,
        R::DrainingOnly | R::InTransaction | R::Running | R::NeverQuiet | R::WaitingForQuiet | R::OverBudget
    )
}

/// Up to when returns of clients closed on this instance would have been seen: on
/// every instance of its database that answers, for they may come back to any.
fn polled_since(instance: &InstanceId, ledger: &Ledger, fleet: &Fleet) -> Option<Time> {
    ledger
        .instances()
        .filter(|other| other.database == instance.database)
        .filter(|other| fleet.instances.get(*other).is_some_and(InstanceView::usable))
        .map(|other| ledger.polled(other))
        .min()
        .flatten()
}

/// Backends in which a client can log in again right now: one server is proved to
/// accept logins, and none that new sessions may be sent to is refusing them.
fn open_backends<'a>(
    servers: &'a BTreeMap<ServerId, ServerConfig>,
    fleet: &Fleet,
    now: Time,
    trusted_since: Time,
) -> HashSet<(usize, &'a str)> {
    let mut open: HashSet<(usize, &str)> = HashSet::new();
    let mut refusing: HashSet<(usize, &str)> = HashSet::new();
    for server in servers.values() {
        let verdict = fleet.servers.get(&server.id);
        let Some((verdict, view)) = verdict.zip(fleet.instances.get(&server.instance)) else { continue };
        let backend = (server.id.proxy, &*server.id.backend);
        if verdict.state != State::Down && view.auth_refused_since.is_some() {
            refusing.insert(backend);
        }
        let proved = view.last_proof.is_some_and(|proof| proof >= trusted_since);
        if verdict.usable() && proved && view.accepts_logins(now) {
            open.insert(backend);
        }
    }
    open.retain(|backend| !refusing.contains(backend));
    open
}

fn group_of(session: &Session<'_>, proxy: &ProxySession) -> Group {
    Group {
        user: session.row.user.clone(),
        application: session.row.application.clone(),
        network: Network::around(proxy.source.ip()),
    }
}

/// Whether the group has another session than this one.
fn has_others(group: &Group, session: &Session<'_>, ledger: &Ledger) -> bool {
    ledger.sessions().any(|other| match other.join {
        Join::Joined(proxy) => {
            (other.row.key != session.row.key || other.instance != session.instance)
                && other.row.user == group.user
                && other.row.application == group.application
                && group.network.contains(proxy.source.ip())
        }
        Join::NotJoined | Join::Disagree => false,
    })
}

fn login_of<'a>(session: &Session<'a>) -> Login<'a> {
    Login {
        instance: session.instance,
        key: session.row.key,
        user: &session.row.user,
        application: &session.row.application,
        network: match session.join {
            Join::Joined(proxy) => Some(Network::around(proxy.source.ip())),
            Join::NotJoined | Join::Disagree => None,
        },
        begin: session.begin,
    }
}

impl Planner {
    /// Whether any drain of the agent's is under way.
    pub fn holds_drains(&self) -> bool {
        self.drains.phases().any(|(_, phase)| phase != DrainPhase::Idle)
    }

    /// Whether sessions may be closed at all under the policy in force.
    pub fn may_close(&self) -> bool {
        self.policy.mode == Mode::Retire && !self.paused
    }
}
