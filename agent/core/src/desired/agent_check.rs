//! HAProxy's agent checks.

use crate::{
    health::{Proof, State, Verdict, VerdictReason},
    plan::AdminWord,
};

/// What an agent-check answer says about one server.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentCheck {
    /// `None` changes nothing.
    pub health: Option<AgentHealth>,
    /// Only where the runtime API cannot carry it.
    pub admin: Option<AdminWord>,
}

/// The health word of an agent check.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AgentHealth {
    Up,
    Down(VerdictReason),
}

/// What an agent check is answered. `admin` is what the server's drain has to say.
///
/// What is only remembered changes nothing: HAProxy's own state is the better memory. An agent that was
/// restarted after a failover would otherwise bring the old writer up beside the new one.
///
/// The steady answer is `up` or `down` alone: any admin word would overwrite an operator's. A
/// verdict of `Drain` is therefore `up` here; the drain goes by the admin state, on record.
pub fn agent_check(verdict: Option<&Verdict>, admin: Option<AdminWord>) -> AgentCheck {
    let health = verdict.and_then(|verdict| match verdict.state {
        State::Up | State::Drain if verdict.proof() == Proof::Remembered => None,
        State::Up | State::Drain => Some(AgentHealth::Up),
        State::Down => Some(AgentHealth::Down(verdict.reason)),
        State::Unknown => None,
    });
    AgentCheck { health, admin }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;

    #[test]
    fn only_down_takes_a_server_away() {
        let health_of = |state| {
            let verdict = Verdict { state, reason: VerdictReason::Refusing, since: Time::AGENT_START };
            agent_check(Some(&verdict), None).health
        };
        assert_eq!(health_of(State::Up), Some(AgentHealth::Up));
        assert_eq!(health_of(State::Drain), Some(AgentHealth::Up));
        assert_eq!(health_of(State::Down), Some(AgentHealth::Down(VerdictReason::Refusing)));
        assert_eq!(health_of(State::Unknown), None);
        assert_eq!(agent_check(None, None), AgentCheck::default());
    }
}
