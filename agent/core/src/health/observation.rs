//! The result of a probe or a liveness query on one instance.

use std::time::Duration;

use serde::Serialize;

use crate::{Fault, InstanceId, Time};

/// An instance's own statement of its role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoleFacts {
    /// In recovery (PostgreSQL), or read-only by replication (MySQL family).
    pub in_recovery: bool,
    /// Transactions are read-only by default although it is not in recovery.
    pub read_only: bool,
    /// It replicates from another server, where it says so (MySQL and MariaDB).
    pub follows_source: bool,
    /// PostgreSQL's timeline.
    pub timeline: Option<u32>,
    /// How far a replica is behind, where it can say.
    pub lag: Option<Duration>,
    /// Sessions of agents on this instance, this one included, by `application_name`.
    pub agents: u32,
}

impl RoleFacts {
    /// Whether the instance takes writes by its own word.
    pub fn claims_writer(&self) -> bool {
        !self.in_recovery && !self.read_only
    }
}

/// One observation of an instance's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub instance: InstanceId,
    /// When it was asked.
    pub at: Time,
    /// Whether it was a full IAM login (`true`) or a query on the kept connection.
    pub login: bool,
    pub result: Result<RoleFacts, Fault>,
}

/// What the agent reads on its kept connections to an instance.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Role, lag and timeline: health.
    Role,
    /// The connection table: ages and activity of sessions.
    Sessions,
}
