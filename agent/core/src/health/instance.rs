//! What is known of one instance, folded from its observations.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HealthRules, Observation, RoleFacts};
use crate::{Evidence, Fault, FaultKind, Phase, Time};

/// How many refusals in a row prove an instance down. One may be a restart of
/// the listener that the very next attempt would survive.
const REFUSALS: u32 = 2;

/// Refusals closer together than this are one event seen by two tasks.
const REFUSAL_SPAN: Duration = Duration::from_millis(200);

/// One refused login may be due to a bad token, and two tasks may observe the same moment. Refusals
/// this far apart show that the database keeps refusing.
const LOGIN_REFUSAL_SPAN: Duration = Duration::from_secs(3);

/// A login proves that clients can come back for this many probe intervals.
const LOGIN_PROVES: u32 = 3;

/// The role an instance has proved.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It takes writes.
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
    /// It answers.
    Usable,
    /// It does not answer, this many times in a row.
    Silent(u32),
    /// It refuses connections.
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
}

/// One instance as the fleet shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceView {
    /// Whether it answers.
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
    /// Whether the database has said so twice, some seconds apart.
    pub auth_refused_twice: bool,
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
    /// Whether another instance claims the same writer's place and nothing tells which is right.
    pub conflict: bool,
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

    /// Whether it turns the agent's logins away, by its own word.
    pub(super) fn refuses_logins(&self) -> bool {
        self.auth_refused_by_database || self.host_blocked_since.is_some()
    }

    /// Whether the instance has stated its role to this agent, rather than to an earlier one.
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
    last_silence: Option<Time>,
    first_login_refusal: Option<Time>,
    last_login_refusal: Option<Time>,
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
                auth_refused_twice: false,
                host_blocked_since: None,
                login_failed_since: None,
                login_proved_until: None,
                last_fault: None,
                agents: 0,
                conflict: false,
            },
            refusals: 0,
            first_refusal: None,
            last_refusal: None,
            last_silence: None,
            first_login_refusal: None,
            last_login_refusal: None,
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
            Ok(facts) => self.answered(facts, observation.at),
            Err(fault) => self.failed(fault, observation.at),
        }
    }

    /// What a login says of logins.
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
                return self.logins_not_refused();
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
                let first = *self.first_login_refusal.get_or_insert(at);
                self.last_login_refusal = Some(at);
                view.auth_refused_twice |= at.since(first) >= LOGIN_REFUSAL_SPAN;
            }
            _ => {}
        }
    }

    fn answered(&mut self, facts: &RoleFacts, at: Time) {
        let view = &mut self.view;
        view.role = Some(if facts.claims_writer() { Role::Writer } else { Role::Reader });
        // Only some answers carry these; the last word stays.
        view.timeline = facts.timeline.or(view.timeline);
        view.lag = facts.lag;
        view.agents = facts.agents.max(1);
        view.last_proof = Some(at);
        view.status = Status::Usable;
        // A query on a kept connection says nothing about logins.
        if view.login_failed_since.is_none() {
            view.last_fault = None;
        }
        self.not_refusing();
    }

    fn failed(&mut self, fault: &Fault, at: Time) {
        self.view.last_fault = Some(fault.clone());
        match fault.evidence() {
            Evidence::Down => self.refused(at),
            Evidence::Silent => self.silent(at),
            // A refusal in the database's own words comes from a living server.
            Evidence::AuthIll if fault.kind != FaultKind::NoToken => self.alive(),
            Evidence::Alive => self.alive(),
            // The agent could not go on, but something answered.
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
        match self.view.status {
            Status::Refusing if over(self.last_refusal) => {
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
            self.logins_not_refused();
        }
    }

    fn refused(&mut self, at: Time) {
        let first = *self.first_refusal.get_or_insert(at);
        self.refusals = self.refusals.saturating_add(1);
        self.last_refusal = Some(at);
        // A connection that broke, and a refusal of the next one, are two witnesses.
        let broke = matches!(self.view.status, Status::Silent(_));
        if broke || (self.refusals >= REFUSALS && at.since(first) >= REFUSAL_SPAN) {
            self.view.status = Status::Refusing;
        }
    }

    fn silent(&mut self, at: Time) {
        self.last_silence = Some(at);
        self.view.status = match self.view.status {
            // One that refused and then says nothing has not come back, for a while.
            Status::Refusing => Status::Refusing,
            Status::Silent(misses) => Status::Silent(misses.saturating_add(1)),
            Status::Unknown | Status::Usable => Status::Silent(1),
        };
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
    }

    fn logins_not_refused(&mut self) {
        self.view.auth_refused_by_database = false;
        self.view.auth_refused_twice = false;
        self.first_login_refusal = None;
        self.last_login_refusal = None;
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

#[expect(clippy::ref_option, reason = "serde hands out references")]
fn seconds<S: serde::Serializer>(lag: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    lag.map(|lag| lag.as_secs_f64()).serialize(serializer)
}
