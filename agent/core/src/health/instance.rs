//! What is known of one instance, folded from its observations.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HealthRules, Observation, Refusal, RoleFacts, refusal::Tries};
use crate::{Evidence, Fault, FaultKind, Phase, Time, freshness};

/// How many refusals in a row prove an instance down. One may be a restart of
/// the listener that the very next attempt would survive.
const REFUSALS: u32 = 2;

/// Refusals closer together than this are one event seen by two tasks.
const REFUSAL_SPAN: Duration = Duration::from_millis(200);

/// One failed login may be of a token that no client would use, and two tasks may meet the same
/// moment. Failures this far apart are lasting.
const LOGIN_FAILURE_SPAN: Duration = Duration::from_secs(3);

/// Good logins in a row that end a lasting trouble. One may have slipped through.
const LOGINS_PROVE_RECOVERY: u32 = 2;

/// A reader that was too far behind serves again when its lag is below this part of `max_lag`, so that
/// a lag near the bound does not move the reads to and fro.
const LAG_RECOVERED: f64 = 0.75;

/// A login proves that clients can come back for this many probe intervals.
const LOGIN_PROVES: u32 = 3;

/// The role an instance has proved.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Writer,
    /// It is a replica, or read-only.
    Reader,
}

/// What is known of an instance's health.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing has been proved yet.
    Unknown,
    Usable,
    /// It does not answer, this many times in a row.
    Silent(u32),
    Refusing,
}

/// What an agent remembers of an instance across its own restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Which instance, as `database/instance`.
    pub database: String,
    /// Its name within the database.
    pub instance: String,
    /// The role it had proved.
    pub role: Role,
    /// Its timeline, where known.
    pub timeline: Option<u32>,
    /// Whether it was the last that held the writer's place beyond doubt.
    #[serde(default)]
    pub last_writer: bool,
    /// Whether it claimed to be the writer beside the last writer for so long that it is one of another database.
    #[serde(default)]
    pub another_database: bool,
}

/// One instance as the fleet shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceView {
    pub status: Status,
    /// Its role by its own last word.
    pub role: Option<Role>,
    /// PostgreSQL's timeline by its own last word.
    pub timeline: Option<u32>,
    /// How far it is behind, where it can say.
    #[serde(serialize_with = "seconds")]
    pub lag: Option<Duration>,
    /// The last answer of any kind.
    pub last_proof: Option<Time>,
    /// The last successful IAM login.
    pub last_login: Option<Time>,
    /// Since when logins are refused, or the agent has no token to try one with.
    pub auth_refused_since: Option<Time>,
    /// Whether the database itself said so; a token the agent could not make
    /// proves nothing about it.
    pub auth_refused_by_database: bool,
    /// What is wrong with new logins, if anything.
    pub login_trouble: Option<Trouble>,
    /// When a client last began a session there, as far as the agent knows.
    pub last_client_login: Option<Time>,
    /// Since when the server blocks the address that the agent's logins come from (1129):
    /// most likely the proxy's, and then its clients fare alike.
    pub host_blocked_since: Option<Time>,
    /// Since when the agent's logins fail, whatever the reason.
    pub login_failed_since: Option<Time>,
    /// Until when the last login counts as proof that clients can log in.
    pub login_proved_until: Option<Time>,
    /// The last fault, if none has succeeded since.
    pub last_fault: Option<Fault>,
    /// Sessions of agents on it, by its own count.
    pub agents: u32,
    /// Whether another instance claims to be the writer too and nothing tells which is right.
    pub conflict: bool,
    /// Whether it replicates from another server, where it says so (MySQL and MariaDB).
    pub follows_source: bool,
    /// Whether it has answered as often in a row as it has to miss to count as silent: a reader that
    /// comes and goes does not move the reads to and fro.
    pub steady: bool,
    /// Whether it is further behind than `max_lag` allows, or was and has not yet recovered.
    pub lagging: bool,
    /// While it refuses connections: what the proxies show of that.
    pub refusal: Option<Refusal>,
}

/// How new logins fail.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginTrouble {
    /// The agent has no token to try with: says nothing about the database.
    NoToken,
    /// The database refuses the agent's logins (class 28, 1045).
    Refused,
    /// The database blocks the agent's address (1129).
    Blocked,
    /// They hang, break off, or find no free connection.
    Failing,
}

/// Failed logins since the last good ones.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// How the last one failed.
    pub kind: LoginTrouble,
    /// When the first one failed.
    pub first: Time,
    /// When the last one failed.
    pub last: Time,
    /// Whether this is more than one moment's failure.
    pub lasting: bool,
    /// Whether a sibling accepted a login between the first and the last failure, so that neither IAM
    /// nor the agent is to blame.
    pub sibling_accepted: bool,
}

impl InstanceView {
    /// Whether it answers and lately let the agent log in: clients can come back to it.
    ///
    /// A kept connection that answers proves nothing about logins, so a login that
    /// timed out, or none for several intervals, counts against it.
    pub fn accepts_logins(&self, now: Time) -> bool {
        self.status == Status::Usable
            && self.auth_refused_since.is_none()
            && self.host_blocked_since.is_none()
            && self.login_failed_since.is_none()
            && self.login_proved_until.is_some_and(|until| now <= until)
    }

    /// Whether it answers now.
    pub fn usable(&self) -> bool {
        self.status == Status::Usable
    }

    /// Whether it answers and says that it is the writer.
    pub fn claims_writer(&self) -> bool {
        self.usable() && self.proved() && self.role == Some(Role::Writer)
    }

    /// Whether it turns the agent's logins away, by its own word, and no client has logged in since.
    pub(super) fn refuses_logins(&self) -> bool {
        let refused = self.auth_refused_by_database || self.host_blocked_since.is_some();
        let tried = |trouble: Trouble| self.last_client_login > Some(trouble.last);
        refused && !self.login_trouble.is_some_and(tried)
    }

    /// Whether its role was observed by this agent, not by an earlier one.
    pub(super) fn proved(&self) -> bool {
        self.last_proof.is_some()
    }
}

/// The fold. One per instance.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    view: InstanceView,
    refusals: u32,
    first_refusal: Option<Time>,
    last_refusal: Option<Time>,
    /// Whether the server itself has said that it stops or starts, since its last answer.
    stops: bool,
    last_silence: Option<Time>,
    /// Whether the agent could not look the last time, for reasons of its own.
    blind: bool,
    last_login_refusal: Option<Time>,
    /// Good logins in a row.
    logins: u32,
    /// Answers in a row since it was last silent or refusing.
    answers: u32,
    remembered: bool,
    latest: Option<Time>,
    latest_login: Option<Time>,
}

impl Instance {
    pub(super) fn new(remembered: Option<&Remembered>) -> Self {
        Self {
            view: InstanceView {
                status: Status::Unknown,
                role: remembered.map(|memory| memory.role),
                timeline: remembered.and_then(|memory| memory.timeline),
                lag: None,
                last_proof: None,
                last_login: None,
                auth_refused_since: None,
                auth_refused_by_database: false,
                login_trouble: None,
                last_client_login: None,
                host_blocked_since: None,
                login_failed_since: None,
                login_proved_until: None,
                last_fault: None,
                agents: 0,
                conflict: false,
                follows_source: false,
                steady: false,
                lagging: false,
                refusal: None,
            },
            refusals: 0,
            first_refusal: None,
            last_refusal: None,
            stops: false,
            last_silence: None,
            blind: false,
            last_login_refusal: None,
            logins: 0,
            answers: 0,
            remembered: remembered.is_some(),
            latest: None,
            latest_login: None,
        }
    }

    pub(super) fn view(&self) -> &InstanceView {
        &self.view
    }

    /// Known by proof, or by the memory of one that nothing has contradicted.
    pub(super) fn known(&self) -> bool {
        self.view.proved() || self.remembered
    }

    /// Whether this agent has had any answer of it, or any failure to get one.
    pub(super) fn asked(&self) -> bool {
        self.view.proved() || self.view.last_fault.is_some()
    }

    /// Whether this agent has had an answer of it about its role, or met no living server.
    pub(super) fn answered_or_gone(&self) -> bool {
        let gone = |fault: &Fault| matches!(fault.evidence(), Evidence::Down | Evidence::Silent);
        self.view.proved() || self.view.last_fault.as_ref().is_some_and(gone)
    }

    pub(super) fn observe(&mut self, observation: &Observation, rules: &HealthRules) {
        // Probes and liveness run side by side; what was asked first may be answered last.
        // A query that began after a login says nothing of how the login went.
        if observation.login && self.latest_login.is_none_or(|latest| latest <= observation.at) {
            self.latest_login = Some(observation.at);
            self.login_ended(observation, rules);
        }
        if self.latest.is_some_and(|latest| observation.at < latest) {
            return;
        }
        self.latest = Some(observation.at);
        match &observation.result {
            Ok(facts) => self.answered(facts, observation.at, rules),
            Err(fault) => self.failed(fault, observation.at, rules),
        }
    }

    /// A client began a session at `at`, so logins worked then.
    pub(super) fn client_login(&mut self, at: Time) {
        self.view.last_client_login = self.view.last_client_login.max(Some(at));
    }

    /// Folds the result of a login.
    fn login_ended(&mut self, observation: &Observation, rules: &HealthRules) {
        let at = observation.at;
        let view = &mut self.view;
        let fault = match &observation.result {
            Ok(_) => {
                view.last_login = Some(at);
                view.auth_refused_since = None;
                view.host_blocked_since = None;
                view.login_failed_since = None;
                view.login_proved_until = Some(at + rules.probe_interval * LOGIN_PROVES);
                return self.logged_in();
            }
            // A login that was not tried has not failed.
            Err(fault) if fault.kind == FaultKind::OverBudget => return,
            Err(fault) => fault,
        };
        view.login_failed_since.get_or_insert(at);
        view.last_fault = Some(fault.clone());
        match fault.kind {
            FaultKind::HostBlocked => {
                view.host_blocked_since.get_or_insert(at);
            }
            FaultKind::NoToken => {
                view.auth_refused_since.get_or_insert(at);
            }
            FaultKind::LoginRefused => {
                view.auth_refused_since.get_or_insert(at);
                view.auth_refused_by_database = true;
                // An authentication error proves that the host is not blocked.
                view.host_blocked_since = None;
                self.last_login_refusal = Some(at);
            }
            _ => {}
        }
        if let Some(kind) = login_trouble(fault) {
            self.login_failed(kind, at);
        }
    }

    fn login_failed(&mut self, kind: LoginTrouble, at: Time) {
        use LoginTrouble as L;
        self.logins = 0;
        let trouble = match self.view.login_trouble {
            // A login that the agent could not try says nothing about the ones that failed.
            Some(known) if kind == L::NoToken && known.kind != L::NoToken => known,
            Some(known) if known.kind != L::NoToken => {
                let lasting =
                    known.lasting || kind == L::Blocked || at.since(known.first) >= LOGIN_FAILURE_SPAN;
                Trouble { kind, last: at, lasting, ..known }
            }
            _ => Trouble { kind, first: at, last: at, lasting: kind == L::Blocked, sibling_accepted: false },
        };
        self.view.login_trouble = Some(trouble);
    }

    fn logged_in(&mut self) {
        self.logins = self.logins.saturating_add(1);
        self.view.auth_refused_by_database = false;
        self.last_login_refusal = None;
        let lasting = self.view.login_trouble.is_some_and(|trouble| {
            trouble.lasting && matches!(trouble.kind, LoginTrouble::Refused | LoginTrouble::Failing)
        });
        if !lasting || self.logins >= LOGINS_PROVE_RECOVERY {
            self.view.login_trouble = None;
        }
    }

    fn answered(&mut self, facts: &RoleFacts, at: Time, rules: &HealthRules) {
        self.answers = self.answers.saturating_add(1);
        self.blind = false;
        let view = &mut self.view;
        // What has never been silent need not prove that it is back.
        view.steady |= view.last_proof.is_none() || self.answers >= rules.liveness_misses;
        view.role = Some(if facts.claims_writer() { Role::Writer } else { Role::Reader });
        // Only some answers carry these; the last word stays.
        view.timeline = facts.timeline.or(view.timeline);
        view.lag = facts.lag;
        view.lagging = lagging(facts.lag, rules.max_lag, view.lagging);
        view.follows_source = facts.follows_source;
        view.agents = facts.agents.max(1);
        view.last_proof = Some(at);
        view.status = Status::Usable;
        // A query on a kept connection says nothing about logins.
        if view.login_failed_since.is_none() {
            view.last_fault = None;
        }
        self.not_refusing();
    }

    fn failed(&mut self, fault: &Fault, at: Time, rules: &HealthRules) {
        self.view.last_fault = Some(fault.clone());
        self.stops |= fault.is_shutdown();
        self.blind =
            matches!(fault.kind, FaultKind::NoToken | FaultKind::NameNotResolved | FaultKind::OutOfResources);
        match fault.evidence() {
            Evidence::Down => self.refused(at),
            Evidence::Silent => self.silent(at, rules),
            // A refusal in the database's own words comes from a living server.
            Evidence::AuthIll if fault.kind != FaultKind::NoToken => self.alive(),
            Evidence::Alive => self.alive(),
            // The agent could not go on, but a server answered.
            Evidence::Nothing if fault.phase > Phase::Tcp && fault.kind != FaultKind::OverBudget => {
                self.nothing_against();
            }
            Evidence::AuthIll | Evidence::Nothing => {}
        }
    }

    /// Drops what was held against it and has not been seen again for a while. The agent may
    /// have lost the means to look (a token, a name, its own host's files): what it saw
    /// before must not stay down until they are back.
    pub(super) fn forget_old_trouble(&mut self, now: Time, rules: &HealthRules) {
        let over = |last: Option<Time>| last.is_some_and(|last| now.since(last) > rules.trouble_lasts());
        let unseen = |last: Option<Time>| {
            self.blind && last.is_some_and(|last| now.since(last) > freshness::UNSEEN_REFUSAL)
        };
        match self.view.status {
            Status::Refusing if over(self.last_refusal) || unseen(self.last_refusal) => {
                self.nothing_against();
                // It has been looked at since, and no longer refuses.
                if self.last_silence.is_some() && !over(self.last_silence) {
                    self.view.status = Status::Silent(1);
                }
            }
            Status::Silent(_) if over(self.last_silence) => self.nothing_against(),
            _ => {}
        }
        if over(self.last_login_refusal) {
            self.view.auth_refused_by_database = false;
            self.last_login_refusal = None;
        }
        if over(self.view.login_trouble.map(|trouble| trouble.last)) {
            self.view.login_trouble = None;
        }
    }

    /// Since when connections are refused.
    pub(super) fn refused_since(&self) -> Option<Time> {
        self.first_refusal
    }

    /// Brings up to date what the proxies show of a refusal; `readable` are their counters.
    pub(super) fn weigh_refusal(&mut self, readable: bool, tries: Option<Tries>) {
        let refusing = self.view.status == Status::Refusing;
        self.view.refusal = match self.view.refusal {
            _ if !refusing => None,
            _ if self.stops => Some(Refusal::Confirmed),
            before => Some(Refusal::next(before, readable, tries)),
        };
    }

    fn refused(&mut self, at: Time) {
        let first = *self.first_refusal.get_or_insert(at);
        self.refusals = self.refusals.saturating_add(1);
        self.last_refusal = Some(at);
        // A connection that broke, and a refusal of the next one, are two witnesses.
        let broke = matches!(self.view.status, Status::Silent(_));
        if broke || (self.refusals >= REFUSALS && at.since(first) >= REFUSAL_SPAN) {
            self.view.status = Status::Refusing;
            self.view.steady = false;
        }
        self.answers = 0;
    }

    fn silent(&mut self, at: Time, rules: &HealthRules) {
        self.last_silence = Some(at);
        self.answers = 0;
        self.view.status = match self.view.status {
            // One that refused and then says nothing has not come back, for a while.
            Status::Refusing => Status::Refusing,
            Status::Silent(misses) => Status::Silent(misses.saturating_add(1)),
            Status::Unknown | Status::Usable => Status::Silent(1),
        };
        if matches!(self.view.status, Status::Silent(misses) if misses >= rules.liveness_misses) {
            self.view.steady = false;
        }
    }

    fn alive(&mut self) {
        self.not_refusing();
        let known = self.view.proved() || self.view.role.is_some();
        self.view.status = if known { Status::Usable } else { Status::Unknown };
    }

    fn nothing_against(&mut self) {
        if matches!(self.view.status, Status::Refusing | Status::Silent(_)) {
            self.view.status = Status::Unknown;
        }
        self.not_refusing();
    }

    fn not_refusing(&mut self) {
        self.refusals = 0;
        self.first_refusal = None;
        self.last_refusal = None;
        self.stops = false;
    }

    /// Siblings accepted logins at these times, the last ones of each.
    pub(super) fn siblings_accepted(&mut self, logins: impl Iterator<Item = Time>) {
        let Some(trouble) = &mut self.view.login_trouble else { return };
        // A block names its own cause; any other failure has to be seen again after the sibling's login.
        let again = |login: Time| trouble.kind == LoginTrouble::Blocked || login < trouble.last;
        let accepted = logins.into_iter().any(|login| trouble.first < login && again(login));
        trouble.sibling_accepted |= accepted;
    }

    pub(super) fn set_conflict(&mut self, conflict: bool) {
        self.view.conflict = conflict;
    }

    /// What is worth remembering of it.
    pub(super) fn remembered(&self) -> Option<(Role, Option<u32>)> {
        self.view.role.map(|role| (role, self.view.timeline))
    }

    /// How often to ask it whether it lives, given how many agents ask.
    pub(super) fn cadence(&self, rules: &HealthRules) -> Duration {
        let base = match self.view.role {
            Some(Role::Writer) => rules.liveness_writer,
            Some(Role::Reader) | None => rules.liveness_reader,
        };
        // All agents together ask one instance at most about 50 times a second.
        base.max(Duration::from_millis(20) * self.view.agents.max(1))
    }
}

/// The trouble that a failed login shows, if any. Faults of the agent's own host, resolver or
/// certificates say nothing, nor does an error after a login that worked. A server that refuses connections
/// or restarts is judged by that, and its first answer ends it.
fn login_trouble(fault: &Fault) -> Option<LoginTrouble> {
    use FaultKind as K;
    match fault.kind {
        K::NoToken => Some(LoginTrouble::NoToken),
        K::LoginRefused => Some(LoginTrouble::Refused),
        K::HostBlocked => Some(LoginTrouble::Blocked),
        K::TimedOut | K::Disconnected if fault.phase == Phase::Query => None,
        K::Unreachable | K::TimedOut | K::Disconnected | K::TooManyConnections => Some(LoginTrouble::Failing),
        _ => None,
    }
}

fn lagging(lag: Option<Duration>, bound: Option<Duration>, before: bool) -> bool {
    let (Some(lag), Some(bound)) = (lag, bound) else { return false };
    lag > if before { bound.mul_f64(LAG_RECOVERED) } else { bound }
}

#[expect(clippy::ref_option, reason = "serde hands out references")]
fn seconds<S: serde::Serializer>(lag: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    lag.map(|lag| lag.as_secs_f64()).serialize(serializer)
}
