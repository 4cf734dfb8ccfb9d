//! One pass over all sessions: who is due, who may go, who is held and why.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use super::{Planner, SessionId};
use crate::{
    InstanceId, ProxyIndex, ServerId, Time,
    health::{Fleet, InstanceView, ServerConfig, State, Verdict, WantedRole},
    plan::{
        Close, Group, Hold, HoldReason, Network, Purpose, Subject,
        breaker::Login,
        drain::Cohort,
        limit_of,
        retire::{Context, Stance, consider},
    },
    session::{BackendKey, Join, Ledger, ProxySession, Session},
};

/// A listing is wanted this long before a session that it lacks is due.
const SWEEP_AHEAD: Duration = Duration::from_secs(3);

/// Where the database does not say when a session began, the proxy is asked when the session
/// has lasted a twentieth of its limit: most short ones have gone by then. Within these bounds.
const UNDATED_LEAST: Duration = Duration::from_secs(1);
const UNDATED_MOST: Duration = Duration::from_secs(15);

/// A session that may be closed now.
pub(super) struct Candidate<'a> {
    pub(super) id: SessionId,
    pub(super) session: Session<'a>,
    pub(super) client: SocketAddr,
    pub(super) proxy: &'a ProxySession,
    pub(super) how: Close,
    pub(super) purpose: Purpose,
    pub(super) age: Duration,
    pub(super) limit: Duration,
}

/// What one pass over the ledger collects.
#[derive(Default)]
pub(super) struct Pass<'a> {
    pub(super) candidates: Vec<Candidate<'a>>,
    pub(super) holds: Vec<Hold>,
    pub(super) watched: BTreeMap<&'a InstanceId, Vec<(Duration, BackendKey)>>,
    /// What holds for each server, and its sessions, in the ledger's order.
    pub(super) facts: Vec<ServerFacts>,
    pub(super) cohorts: Vec<Cohort>,
    /// From when on a listing would speak of all sessions of this instance that no proxy has shown.
    pub(super) unjoined: BTreeMap<&'a InstanceId, Time>,
    /// Instances to log in to before more is closed.
    pub(super) probe: BTreeSet<InstanceId>,
    pub(super) due: usize,
    /// Sessions that could be closed now, if there were permits.
    pub(super) permits: BTreeMap<InstanceId, u32>,
    /// Sessions that were reported as closed and are still listed.
    pub(super) lingering: Vec<(InstanceId, SessionId)>,
    /// Whether any of them may be closed before long.
    pub(super) closing: bool,
    pub(super) wake: Option<Time>,
    /// Whether any group is paused at all.
    pub(super) breaker_open: bool,
}

/// Where the agent has logged in as a client that comes back would, and when.
#[derive(Clone)]
pub(super) struct WayBack {
    pub(super) instance: InstanceId,
    pub(super) login: Time,
}

/// What holds for all sessions through one server.
#[derive(Clone, Default)]
pub(super) struct ServerFacts {
    pub(super) proxy_seen: Option<Time>,
    /// The last login that proves that clients can come back; `None` if they cannot.
    pub(super) way_back: Option<WayBack>,
    pub(super) demoted_for: Option<Duration>,
    /// An operator wants its sessions retired whatever their age.
    pub(super) emptying: bool,
    pub(super) commandable: bool,
}

impl Planner {
    /// One pass over all sessions.
    pub(super) fn survey<'a>(&mut self, now: Time, ledger: &'a Ledger, fleet: &Fleet) -> Pass<'a> {
        let mut pass = Pass {
            breaker_open: self.breaker.open().next().is_some(),
            facts: self.facts(now, ledger, fleet),
            cohorts: vec![Cohort::default(); ledger.servers().len()],
            ..Pass::default()
        };
        let waits_since = self.breaker.waits_since();
        let youngest_due = self.policy.max_age.mul_f64((1.0 - self.policy.jitter).max(0.0));
        let youngest_due = youngest_due.saturating_sub(self.policy.window()).saturating_sub(SWEEP_AHEAD);
        let any_age = self.policy.demotion_grace.is_some() || pass.facts.iter().any(|facts| facts.emptying);
        let undated = (self.policy.max_age / 20).clamp(UNDATED_LEAST, UNDATED_MOST);
        for instance in ledger.instances() {
            let Some(&index) = self.instances.get(instance) else { continue };
            for session in ledger.sessions_of(instance) {
                if waits_since.is_some_and(|since| session.begin >= since) {
                    self.breaker.seen(&login_of(&session), now);
                }
                if let Some(cohort) = session.server.and_then(|server| server.of_mut(&mut pass.cohorts)) {
                    cohort.all += 1;
                }
                if !session.dated && session.row.client.is_some() {
                    let ask = session.begin + undated;
                    if now >= ask {
                        pass.unjoined(&session);
                    } else {
                        pass.wake_at(ask);
                    }
                }
                let due = session.begin + youngest_due;
                if now < due && !any_age {
                    pass.wake_at(due);
                    continue;
                }
                if session.server.is_none() && session.row.client.is_some() {
                    pass.unjoined(&session);
                }
                self.weigh(now, (index, session.row.key), session, &mut pass);
            }
        }
        pass
    }

    /// What holds for each server, in the ledger's order.
    pub(super) fn facts(&self, now: Time, ledger: &Ledger, fleet: &Fleet) -> Vec<ServerFacts> {
        let emptying: BTreeSet<&ServerId> = self.drains.emptying().collect();
        let open_backends = open_backends(&self.servers, fleet, now, self.trusted_since);
        let facts = |id: &ServerId| {
            let config = self.servers.get(id)?;
            let wants_writer = config.wanted == WantedRole::Writer;
            let demoted = self.demoted.get(&config.instance).filter(|_| wants_writer);
            Some(ServerFacts {
                proxy_seen: ledger.proxy_seen(id.proxy),
                way_back: way_back(config, &open_backends, fleet, now).filter(|_| !self.credentials_ill),
                demoted_for: demoted.map(|since| now.since(*since)),
                emptying: emptying.contains(id),
                commandable: config.commandable,
            })
        };
        ledger.servers().iter().map(|id| facts(id).unwrap_or_default()).collect()
    }

    /// One session that is due, or nearly.
    pub(super) fn weigh<'a>(&self, now: Time, id: SessionId, session: Session<'a>, pass: &mut Pass<'a>) {
        let joined = match session.join {
            Join::Joined(proxy) => Some(proxy),
            Join::NotJoined | Join::Disagree => None,
        };
        let facts = session.server.and_then(|server| server.of(&pass.facts));
        let context = Context {
            now,
            policy: &self.policy,
            paused: self.paused,
            trusted_since: self.trusted_since,
            proxy_seen: facts.and_then(|facts| facts.proxy_seen),
            can_come_back: facts.is_some_and(|facts| facts.way_back.is_some()),
            demoted_for: facts.and_then(|facts| facts.demoted_for),
            emptying: facts.is_some_and(|facts| facts.emptying),
            commandable: facts.is_some_and(|facts| facts.commandable),
            tried: self.tries.last(id),
        };
        if self.tries.lingers(id, session.seen) {
            pass.lingering.push((session.instance.clone(), id));
        }
        let age = now.since(session.begin);
        let limit = limit_of(&self.policy, &session.row.key);
        let stance = match consider(&session, &context) {
            Stance::NotDue(at) => {
                pass.wake_at(at);
                return;
            }
            _ if self.in_flight.contains_key(&id) => {
                pass.due += 1;
                pass.closing = true;
                pass.count_due(&session);
                return;
            }
            Stance::Fire(_) if self.tries.denied(session.instance, now) => {
                Stance::Hold { reason: HoldReason::Denied, watch: false, until: None }
            }
            Stance::Fire(_) if let Some((reason, until)) = self.tries.held(id, now) => {
                Stance::Hold { reason, watch: false, until: Some(until) }
            }
            // One held back with its group need not be watched for a quiet moment.
            Stance::Fire(_)
            | Stance::Hold {
                reason: HoldReason::WaitingForQuiet | HoldReason::NeverQuiet | HoldReason::SourceStale,
                ..
            } if pass.breaker_open
                && joined.is_some_and(|proxy| {
                    self.breaker.paused(&Group::of(&session, proxy), &self.policy.breaker, now)
                }) =>
            {
                Stance::Hold { reason: HoldReason::Breaker, watch: false, until: None }
            }
            stance => stance,
        };
        if !matches!(stance, Stance::Hold { reason, .. } if reason.never_passes()) {
            pass.due += 1;
        }
        match (stance, joined, session.row.client) {
            (Stance::Fire(how), Some(proxy), Some(client)) => {
                pass.closing = true;
                pass.count_due(&session);
                let purpose = if context.demoted() { Purpose::Failover } else { Purpose::Close };
                pass.candidates.push(Candidate { id, session, client, proxy, how, purpose, age, limit });
            }
            (Stance::Hold { reason, watch, until }, ..) => {
                pass.closing |= reason.may_pass();
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
}

impl<'a> Pass<'a> {
    pub(super) fn unjoined(&mut self, session: &Session<'a>) {
        let latest = self.unjoined.entry(session.instance).or_insert(session.settled);
        *latest = session.settled.max(*latest);
    }

    pub(super) fn watch(&mut self, session: &Session<'a>, overdue: Duration) {
        self.watched.entry(session.instance).or_default().push((overdue, session.row.key));
    }

    /// A session could be closed now.
    pub(super) fn wants_permit(&mut self, instance: &InstanceId, wants: bool) {
        if wants {
            *self.permits.entry(instance.clone()).or_default() += 1;
        }
    }

    pub(super) fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |other| other.min(at)));
    }

    pub(super) fn count_due(&mut self, session: &Session<'_>) {
        if let Some(cohort) = session.server.and_then(|server| server.of_mut(&mut self.cohorts)) {
            cohort.due += 1;
        }
    }

    pub(super) fn hold(
        &mut self,
        now: Time,
        session: &Session<'_>,
        age: Duration,
        limit: Duration,
        reason: HoldReason,
    ) {
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

/// How a client of this server's comes back: to its own instance, if new sessions may go there,
/// or to one beside it.
fn way_back(
    config: &ServerConfig,
    open_backends: &HashMap<(ProxyIndex, &str), WayBack>,
    fleet: &Fleet,
    now: Time,
) -> Option<WayBack> {
    let latest = open_backends.get(&(config.id.proxy, &*config.id.backend))?;
    let own = fleet.servers.get(&config.id).zip(fleet.instances.get(&config.instance));
    let login = own.and_then(|(verdict, view)| login_at(*verdict, view, now));
    Some(match login {
        Some(login) => WayBack { instance: config.instance.clone(), login },
        None => latest.clone(),
    })
}

/// When the agent last logged in to a server that new sessions may be sent to, if it still
/// accepts logins for all that is known.
fn login_at(verdict: Verdict, view: &InstanceView, now: Time) -> Option<Time> {
    view.last_login.filter(|_| verdict.usable() && view.accepts_logins(now))
}

/// Backends in which a client can log in again: one server is proved to
/// accept logins, and none that new sessions may be sent to is refusing them. With the last proof.
fn open_backends<'a>(
    servers: &'a BTreeMap<ServerId, ServerConfig>,
    fleet: &Fleet,
    now: Time,
    trusted_since: Time,
) -> HashMap<(ProxyIndex, &'a str), WayBack> {
    let mut open: HashMap<(ProxyIndex, &str), WayBack> = HashMap::new();
    let mut refusing: HashSet<(ProxyIndex, &str)> = HashSet::new();
    for server in servers.values() {
        let verdict = fleet.servers.get(&server.id);
        let Some((verdict, view)) = verdict.zip(fleet.instances.get(&server.instance)) else { continue };
        let backend = (server.id.proxy, &*server.id.backend);
        let refuses = view.auth_refused_since.is_some() || view.host_blocked_since.is_some();
        if verdict.state != State::Down && refuses {
            refusing.insert(backend);
        }
        let proved = view.last_proof.is_some_and(|proof| proof >= trusted_since);
        if let Some(login) = login_at(*verdict, view, now).filter(|_| proved)
            && open.get(&backend).is_none_or(|other| other.login < login)
        {
            open.insert(backend, WayBack { instance: server.instance.clone(), login });
        }
    }
    open.retain(|backend, _| !refusing.contains(backend));
    open
}

fn login_of<'a>(session: &Session<'a>) -> Login<'a> {
    Login {
        instance: session.instance,
        key: session.row.key,
        user: &session.row.user,
        application: &session.row.application,
        network: match session.join {
            Join::Joined(proxy) => Some(Network::around(proxy.client_host())),
            Join::NotJoined | Join::Disagree => None,
        },
        begin: session.begin,
    }
}
