//! The operator's choices about sessions, with the defaults of the field.

use std::time::Duration;

use serde::Serialize;

use super::{Exempt, Scope};

/// What the agent may do.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Report what it would do. Needs no right to close anything.
    #[default]
    Observe,
    Drain,
    /// Retire sessions in place, drain where it helps.
    Retire,
}

/// What happens at its limit to a session that is never quiet.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Busy {
    #[default]
    Hold,
    /// It is caught within milliseconds of going idle.
    Catch,
}

/// Who closes a session.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseVia {
    /// The database, in one guarded statement; the client can read why.
    #[default]
    Database,
    /// The proxy, by a guarded `shutdown session`; the client sees the end of the stream.
    Proxy,
}

/// When clients that were closed count as not coming back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BreakerPolicy {
    /// Within this time of a close the group has to be seen to log in again.
    pub return_within: Duration,
    /// This many closes in a row without a return pause the group.
    pub misses: u32,
    /// A paused group gets one trial after this.
    pub retry_after: Duration,
}

/// The policy about sessions. `Default` is what an empty `sessions:` section means.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// What the agent may do.
    pub mode: Mode,
    /// The age at which a session has to go.
    pub max_age: Duration,
    /// The quiet time asked for in the first half of the window.
    pub quiet: Duration,
    /// The quiet time asked for after it.
    pub quiet_min: Duration,
    /// What happens to sessions that are never quiet.
    pub busy: Busy,
    pub close_via: CloseVia,
    /// Closes and own logins on one instance in any one second.
    pub login_budget: u32,
    /// Closes on a demoted writer in any one second, where `demotion_grace` is set.
    pub failover_budget: u32,
    /// The share of a server's sessions that has to be due before it is drained.
    pub drain_share: f64,
    /// A drain ends after this, whatever is left.
    pub drain_deadline: Duration,
    /// The share of a backend's usable servers that always stays.
    pub capacity_floor: f64,
    /// Who is left alone.
    pub exempt: Exempt,
    /// Whose sessions are looked after.
    pub scope: Scope,
    /// Past the limit by this much, a session goes even if it is busy. Off by default.
    pub force_after: Option<Duration>,
    /// On an instance that says itself that it is no longer the writer, sessions sent
    /// there as to the writer go whatever their age: at a quiet moment at once, and
    /// after this whatever they are doing. Off by default.
    pub demotion_grace: Option<Duration>,
    /// The limit of each session differs by up to this share of `max_age`, both ways.
    pub jitter: f64,
    /// Clients that do not come back.
    pub breaker: BreakerPolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            max_age: Duration::from_secs(14 * 60),
            quiet: Duration::from_secs(1),
            quiet_min: Duration::from_millis(200),
            busy: Busy::Hold,
            close_via: CloseVia::Database,
            login_budget: 5,
            failover_budget: 100,
            drain_share: 0.5,
            drain_deadline: Duration::from_secs(60),
            capacity_floor: 0.5,
            exempt: Exempt::default(),
            scope: Scope::default(),
            force_after: None,
            demotion_grace: None,
            jitter: 0.10,
            breaker: BreakerPolicy {
                return_within: Duration::from_secs(10),
                misses: 3,
                retry_after: Duration::from_secs(5 * 60),
            },
        }
    }
}

impl Policy {
    /// The time before the limit in which a session may go: `min(4m, 2/7 of max_age)`.
    pub fn window(&self) -> Duration {
        (self.max_age * 2 / 7).min(Duration::from_secs(4 * 60))
    }
}
