//! What is known of one instance, folded from its observations.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HealthRules, Observation, RoleFacts};
use crate::{Evidence, Fault, Time};

/// How many refusals in a row prove an instance down. One may be a restart of
/// the listener that the very next attempt would survive.
const REFUSALS: u32 = 2;

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
    pub lag: Option<Duration>,
    /// The last answer of any kind.
    pub last_proof: Option<Time>,
    /// The last successful IAM login.
    pub last_login: Option<Time>,
    /// Since when logins are refused, if they are.
    pub auth_refused_since: Option<Time>,
    /// The last fault, if none has succeeded since.
    pub last_fault: Option<Fault>,
    /// Sessions of agents on it, by its own count.
    pub agents: u32,
    /// Whether another instance claims the same writer's place and nothing tells which is right.
    pub conflict: bool,
}

impl InstanceView {
    /// Whether it answers now and lets the agent log in: clients can come back to it.
    pub fn accepts_logins(&self) -> bool {
        self.status == Status::Usable && self.last_login.is_some() && self.auth_refused_since.is_none()
    }

    /// Whether it answers now.
    pub fn usable(&self) -> bool {
        self.status == Status::Usable
    }
}

/// The fold. One per instance.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    view: InstanceView,
    refusals: u32,
    remembered: bool,
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
                last_fault: None,
                agents: 0,
                conflict: false,
            },
            refusals: 0,
            remembered: remembered.is_some(),
        }
    }

    pub(super) fn view(&self) -> &InstanceView {
        &self.view
    }

    /// Known by proof, or by the memory of one that nothing has contradicted.
    pub(super) fn known(&self) -> bool {
        self.view.last_proof.is_some() || self.remembered
    }

    pub(super) fn observe(&mut self, observation: &Observation) {
        match &observation.result {
            Ok(facts) => self.proved(facts, observation),
            Err(fault) => self.failed(fault, observation),
        }
    }

    fn proved(&mut self, facts: &RoleFacts, observation: &Observation) {
        let view = &mut self.view;
        view.role = Some(if facts.claims_writer() { Role::Writer } else { Role::Reader });
        // Only some answers carry these; the last word stays.
        view.timeline = facts.timeline.or(view.timeline);
        view.lag = facts.lag;
        view.agents = facts.agents.max(1);
        view.last_proof = Some(observation.at);
        view.status = Status::Usable;
        if observation.login {
            view.last_login = Some(observation.at);
            view.auth_refused_since = None;
        }
        // A query on a kept connection says nothing about logins.
        if view.auth_refused_since.is_none() {
            view.last_fault = None;
        }
        self.refusals = 0;
    }

    fn failed(&mut self, fault: &Fault, observation: &Observation) {
        let view = &mut self.view;
        view.last_fault = Some(fault.clone());
        match fault.evidence() {
            Evidence::Down => {
                self.refusals += 1;
                if self.refusals >= REFUSALS {
                    view.status = Status::Refusing;
                }
            }
            Evidence::Silent => {
                let misses = if let Status::Silent(misses) = view.status { misses } else { 0 };
                // One that refused and then says nothing has not come back.
                if view.status != Status::Refusing {
                    view.status = Status::Silent(misses.saturating_add(1));
                }
            }
            Evidence::AuthIll => {
                if observation.login {
                    view.auth_refused_since.get_or_insert(observation.at);
                }
                // A refusal in the database's own words comes from a living server;
                // a token the agent could not even make says nothing about it.
                if fault.kind != crate::FaultKind::NoToken {
                    self.alive();
                }
            }
            Evidence::Alive => self.alive(),
            Evidence::Nothing => {}
        }
    }

    fn alive(&mut self) {
        self.refusals = 0;
        if self.view.last_proof.is_some() || self.view.role.is_some() {
            self.view.status = Status::Usable;
        }
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
