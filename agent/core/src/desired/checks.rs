//! Envoy's active health checks, for clusters whose endpoints stand in its own configuration.
//!
//! A check fails on evidence alone. But of several endpoints one is the writer, and Envoy uses every
//! one that passes: there, an unproved endpoint does not pass. Beside a proved writer it fails, as
//! in endpoint discovery; without one the check is left unanswered, so that Envoy falls back to the
//! name that RDS keeps, as it would without an agent.

use super::{EndpointHealth, Member};
use crate::{
    Time,
    freshness::{Freshness, stood_still},
    health::{Fleet, Proof, ServerConfig, State, WantedRole},
};

/// What the agent knows of one endpoint.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// `None` while nothing is known.
    pub health: Option<EndpointHealth>,
    pub while_unknown: WhileUnknown,
}

/// What a check gets while nothing is known.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum WhileUnknown {
    /// It passes: the unknown takes nothing away.
    Passes,
    /// It is left unanswered: of several endpoints that pass, most would be the wrong one.
    Waits,
}

/// The answer to one check.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum CheckAnswer {
    Known(EndpointHealth),
    Passes,
    Waits,
}

impl Check {
    /// The answer, by a snapshot of this freshness.
    pub fn answer(self, freshness: Freshness) -> CheckAnswer {
        let believed = match self.while_unknown {
            WhileUnknown::Passes => freshness < Freshness::Stuck,
            WhileUnknown::Waits => freshness == Freshness::Fresh,
        };
        match (self.health.filter(|_| believed), self.while_unknown) {
            (Some(health), _) => CheckAnswer::Known(health),
            (None, WhileUnknown::Passes) => CheckAnswer::Passes,
            (None, WhileUnknown::Waits) => CheckAnswer::Waits,
        }
    }
}

/// Since when the agent has run without a gap: since its start, or since it last stood still.
#[derive(Copy, Clone, Debug)]
pub struct Awake {
    since: Time,
    last: Option<Time>,
}

impl Default for Awake {
    fn default() -> Self {
        Self { since: Time::AGENT_START, last: None }
    }
}

impl Awake {
    /// Takes in the next fleet.
    pub fn look(&mut self, fleet: &Fleet) {
        if self.last.is_some_and(|last| stood_still(fleet.at.since(last))) {
            self.since = fleet.at;
        }
        self.last = Some(fleet.at);
    }

    /// Whether a server is usable only by what was seen before the gap, or by an earlier agent.
    pub fn is_unsure(self, servers: &[ServerConfig], fleet: &Fleet) -> bool {
        servers.iter().any(|server| {
            let state = fleet.servers.get(&server.id).map(|verdict| verdict.state);
            matches!(state, Some(State::Up | State::Drain)) && !self.has_seen(server, fleet)
        })
    }

    /// Whether the instance of a server has answered since.
    fn has_seen(self, server: &ServerConfig, fleet: &Fleet) -> bool {
        let view = fleet.instances.get(&server.instance);
        view.is_some_and(|view| view.last_proof.is_some_and(|proof| proof >= self.since))
    }
}

/// What is known of the endpoints of one cluster, in the order of its members.
pub fn checks(members: &[Member<'_>], fleet: &Fleet, awake: Awake) -> Vec<Check> {
    let writer_of_several =
        members.len() > 1 && members.iter().any(|member| member.server.wanted == WantedRole::Writer);
    let state = |member: &Member<'_>| match member.state() {
        state if !writer_of_several => state,
        // RDS's own name knows the writer better than a last resort.
        _ if member.proof() == Proof::LastResort => State::Unknown,
        State::Up | State::Drain if !awake.has_seen(member.server, fleet) => State::Unknown,
        state => state,
    };
    let writes_elsewhere = members.iter().any(|member| state(member) == State::Up);
    let health = |member: &Member<'_>| match state(member) {
        State::Down => Some(EndpointHealth::Unhealthy),
        State::Unknown if writer_of_several && writes_elsewhere => Some(EndpointHealth::Unhealthy),
        State::Unknown if writer_of_several => None,
        _ if member.drained => Some(EndpointHealth::Draining),
        State::Drain => Some(EndpointHealth::Degraded),
        State::Up => Some(EndpointHealth::Healthy),
        State::Unknown => None,
    };
    let while_unknown = if writer_of_several { WhileUnknown::Waits } else { WhileUnknown::Passes };
    members.iter().map(|member| Check { health: health(member), while_unknown }).collect()
}
