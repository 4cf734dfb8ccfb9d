//! The planner: once a tick, from ledger and fleet to a plan.
//!
//! It keeps what a plan needs to know of earlier ones: commands under way,
//! tries that failed, drains, paused groups, how long an instance has been
//! demoted. It reads no clock and does no I/O.
//!
//! - `survey`: one pass over all sessions: due, free to go, or held.
//! - `shortage`: instances with more sessions than the budget can close in time.
//! - `fire`: from those free to go to commands.

mod fire;
mod shortage;
mod survey;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use super::{
    AdminFlags, AdminWord, Breaker, Budget, Command, Drains, Group, Hold, HoldReason, Outcome, Plan, Policy,
    Purpose, Requested, Retired, Shown, Subject,
    drain::{Scene, Ticked},
    tries::Tries,
};
use crate::{
    DatabaseName, Fault, InstanceId, ProxyIndex, ServerId, Time,
    freshness::{LISTING_SETTLED, stood_still},
    health::{Fleet, InstanceView, Role, ServerConfig},
    peers::{Look, Peers},
    session::{BackendKey, Ledger},
};
use survey::Pass;

/// A plan is made at least this often, so that a longer gap means the agent was frozen.
const TICK: Duration = Duration::from_secs(1);

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

/// A command without an outcome is given up after this.
const LOST: Duration = Duration::from_secs(30);

/// An instance, by its index among those of this planner. Cheaper to copy and hash than its name.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct InstanceIndex(usize);

type SessionId = (InstanceIndex, BackendKey);

#[derive(Debug)]
pub struct Planner {
    policy: Policy,
    servers: BTreeMap<ServerId, ServerConfig>,
    instances: BTreeMap<InstanceId, InstanceIndex>,
    drains: Drains,
    breaker: Breaker,
    peers: Peers,
    paused: bool,
    credentials_ill: bool,
    in_flight: HashMap<SessionId, Flight>,
    tries: Tries<SessionId>,
    demoted: BTreeMap<InstanceId, Time>,
    /// Instances with more sessions than the budget can close within `max_age`.
    short: BTreeSet<InstanceId>,
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
    purpose: Purpose,
    had_others: bool,
}

impl Planner {
    /// A planner for these servers.
    pub fn new(policy: Policy, servers: &[ServerConfig]) -> Self {
        let instances: BTreeSet<&InstanceId> = servers.iter().map(|server| &server.instance).collect();
        Self {
            instances: instances.into_iter().cloned().zip((0..).map(InstanceIndex)).collect(),
            policy,
            drains: Drains::new(servers),
            servers: servers.iter().map(|server| (server.id.clone(), server.clone())).collect(),
            breaker: Breaker::default(),
            peers: Peers::default(),
            paused: false,
            credentials_ill: false,
            in_flight: HashMap::new(),
            tries: Tries::default(),
            short: BTreeSet::new(),
            demoted: BTreeMap::new(),
            last_plan: None,
            trusted_since: Time::AGENT_START,
            events: Vec::new(),
            held: HashMap::new(),
            held_servers: HashMap::new(),
        }
    }

    /// Takes over what an earlier planner has learned of clients that do and do not come
    /// back: a pause of theirs lasts until it is resolved, whatever else changes.
    pub fn inherit(&mut self, earlier: Self) {
        self.breaker = earlier.breaker.inherited();
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The drains of all servers.
    pub fn drains(&self) -> &Drains {
        &self.drains
    }

    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Other agents of the same instances.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The locks of an instance, asked for at `asked` and read at `at`; or why they could not be.
    pub fn observe_peers(&mut self, instance: &InstanceId, asked: Time, at: Time, look: Result<Look, Fault>) {
        self.peers.observe(instance, asked, at, look);
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
        self.tries.reset();
    }

    /// Takes over a drain that a former agent recorded: it is taken back.
    pub fn adopt(&mut self, server: &ServerId, now: Time) {
        self.drains.adopt(server, &self.policy, now);
    }

    /// Takes over a drain that an operator asked a former agent for.
    pub fn adopt_operators(&mut self, server: &ServerId, requested: Requested, now: Time) {
        self.drains.adopt_operators(server, requested, &self.policy, now);
    }

    /// Drains a server for an operator, above the capacity floor. Whether the record of a drain has changed.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn request_drain(
        &mut self,
        server: &ServerId,
        requested: Requested,
        fleet: &Fleet,
        now: Time,
    ) -> Result<bool, HoldReason> {
        self.drains.request(server, requested, fleet, &self.peers, &self.policy, now)
    }

    /// Takes back the drain of one server, or all of the agent's own.
    pub fn release_drains(&mut self, server: Option<&ServerId>, now: Time) -> Vec<Command> {
        self.drains.release(server, &self.policy, now)
    }

    /// Whether the agent can get credentials. While it cannot, clients may not either.
    pub fn observe_credentials(&mut self, well: bool) {
        self.credentials_ill = !well;
    }

    /// A server's admin flags in HAProxy's own table, asked for at `at`.
    pub fn observe_admin(&mut self, server: &ServerId, at: Time, flags: AdminFlags) -> Option<Command> {
        self.drains.observe(server, at, Shown::Admin(flags), &self.policy)
    }

    /// A HAProxy is another process since its table before `at`.
    pub fn proxy_restarted(&mut self, proxy: ProxyIndex, at: Time) {
        self.drains.proxy_restarted(proxy, at);
    }

    /// Whether the endpoints that an Envoy is sent drain a server.
    pub fn observe_endpoint(&mut self, server: &ServerId, at: Time, drained: bool) -> Option<Command> {
        self.drains.observe(server, at, Shown::Endpoint { drained }, &self.policy)
    }

    /// An agent-check answer with an admin word was read by the proxy.
    pub fn delivered(&mut self, server: &ServerId, word: AdminWord) {
        self.drains.delivered(server, word);
    }

    /// What became of a command.
    pub fn outcome(&mut self, now: Time, outcome: &Outcome) {
        match outcome {
            Outcome::Drain { server, sent } => self.drains.sent(server, *sent, now),
            Outcome::Undrain { server, taken } => self.drains.ended(server, *taken),
            Outcome::Retire { instance, key, retired, .. } => {
                let Some(index) = self.instances.get(instance) else { return };
                let session = (*index, *key);
                let flight = self.in_flight.remove(&session);
                // From the command on: its client may be back before this is known.
                if let (Retired::Closed, Some(Flight { group, had_others, since, .. })) = (retired, flight) {
                    self.breaker.closed(group, instance.clone(), *key, had_others, since);
                }
                self.tries.ended(instance, session, *retired, now);
            }
        }
    }

    /// The plan for this moment.
    pub fn plan(&mut self, now: Time, ledger: &Ledger, fleet: &Fleet, budget: &Budget) -> Plan {
        self.settle(now, ledger, fleet);
        let mut pass = self.survey(now, ledger, fleet);
        self.not_closed(now, &pass.lingering);
        let cohorts = ledger.servers().iter().cloned().zip(pass.cohorts.iter().copied()).collect();
        let (policy, peers, paused) = (&self.policy, &self.peers, self.paused);
        let scene = Scene { now, fleet, cohorts: &cohorts, policy, peers, paused };
        let Ticked { mut commands, holds: server_holds, marks, meet } = self.drains.tick(&scene);
        self.fire(now, &mut pass, ledger, budget, &mut commands);
        let answered = |instance: &InstanceId| polled_since(instance, ledger, fleet);
        self.events.extend(self.breaker.expire(&self.policy.breaker, now, answered));

        let sweep = self.sweep(now, &mut pass, ledger);
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
            probe: pass.probe,
            sessions: ledger.len(),
            due: pass.due,
            shortages: self.shortages(ledger),
            permits: pass.permits,
            marks,
            meet,
            closing: pass.closing,
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
                let Some(index) = self.instances.get(instance) else { continue };
                let session = (*index, *key);
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
        if self.last_plan.is_some_and(|last| stood_still(now.since(last))) {
            self.trusted_since = now;
        }
        self.last_plan = Some(now);
        self.in_flight.retain(|_, flight| now.since(flight.since) <= LOST);
        if self.tries.len() > 2 * ledger.len() + 1_000 {
            let live: HashSet<SessionId> = ledger
                .instances()
                .filter_map(|instance| Some((instance, *self.instances.get(instance)?)))
                .flat_map(|(instance, index)| {
                    ledger.sessions_of(instance).map(move |session| (index, session.row.key))
                })
                .collect();
            self.tries.retain(|session| live.contains(session));
        }
        for (instance, view) in &fleet.instances {
            if view.role == Some(Role::Reader) && view.usable() {
                self.demoted.entry(instance.clone()).or_insert(now);
            } else {
                self.demoted.remove(instance);
            }
        }
    }

    /// Sessions that were reported as closed and are still listed: they were not closed, and their clients
    /// are not awaited.
    fn not_closed(&mut self, now: Time, lingering: &[(InstanceId, SessionId)]) {
        for (instance, session) in lingering {
            self.tries.not_closed(*session, now);
            self.breaker.not_closed(instance, session.1);
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

    /// The proxies to list again: those of instances with sessions that are nearly due and not joined, and
    /// each once after the start, so that the ages of all sessions are known early.
    fn sweep(&self, now: Time, pass: &mut Pass<'_>, ledger: &Ledger) -> BTreeSet<ProxyIndex> {
        let mut proxies = BTreeSet::new();
        for server in self.servers.values() {
            if let Some(first) = ledger.first_polled(&server.instance) {
                // A listing made before this does not speak of the sessions that were found then.
                let settled = first + LISTING_SETTLED;
                if ledger.proxy_swept(server.id.proxy).is_none_or(|swept| swept < settled) {
                    if now >= settled {
                        proxies.insert(server.id.proxy);
                    } else {
                        pass.wake_at(settled);
                    }
                }
            }
            let Some(settled) = pass.unjoined.get(&server.instance) else { continue };
            // A listing made well after a session began, and without it, has said all there is.
            let wanted = ledger.proxy_swept(server.id.proxy).is_none_or(|swept| {
                now.since(swept) >= SWEEP && (swept < *settled + SWEEP || now.since(swept) >= SWEEP_AGAIN)
            });
            if wanted {
                proxies.insert(server.id.proxy);
            }
        }
        proxies
    }
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
