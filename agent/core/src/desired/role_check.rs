//! Health over HTTP, by instance and role.

use crate::{
    freshness::Freshness,
    health::{State, Verdict},
};

/// Whether the check passes. It fails on positive and current evidence alone.
pub fn role_check(verdict: &Verdict, freshness: Freshness) -> bool {
    verdict.state != State::Down || freshness == Freshness::Stuck
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Time, health::VerdictReason};

    #[test]
    fn a_check_fails_on_current_evidence_alone() {
        let say = |state, freshness| {
            role_check(
                &Verdict { state, reason: VerdictReason::Refusing, since: Time::AGENT_START },
                freshness,
            )
        };
        assert!(!say(State::Down, Freshness::Fresh) && !say(State::Down, Freshness::Old));
        assert!(say(State::Down, Freshness::Stuck), "a hanging decider knows nothing");
        for state in [State::Up, State::Drain, State::Unknown] {
            assert!(say(state, Freshness::Fresh), "{state:?}");
        }
    }
}
