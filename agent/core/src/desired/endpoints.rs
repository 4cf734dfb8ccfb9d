//! Envoy's endpoint discovery.
//!
//! An Envoy keeps the last endpoints it was sent. So nothing is said about a cluster while nothing
//! is known of it, nor of a cluster of the writer while several may be it; and what is unknown beside
//! something known takes nothing away, except in a cluster of the writer: there is one writer, and it is
//! another.

use crate::health::{Proof, ServerConfig, State, Verdict, WantedRole};

/// Whether an endpoint takes new sessions.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum EndpointHealth {
    Healthy,
    /// Only while no healthy one is left.
    Degraded,
    /// No: drained by an operator.
    Draining,
    Unhealthy,
}

/// One server of a cluster.
#[derive(Copy, Clone, Debug)]
pub struct Member<'a> {
    pub server: &'a ServerConfig,
    /// `None` before the first verdict.
    pub verdict: Option<&'a Verdict>,
    /// An operator has drained it through the agent.
    pub drained: bool,
    /// Whether its name resolves to an address.
    pub resolved: bool,
}

impl Member<'_> {
    pub(super) fn state(&self) -> State {
        self.verdict.map_or(State::Unknown, |verdict| verdict.state)
    }

    pub(super) fn proof(&self) -> Proof {
        self.verdict.map_or(Proof::Unproved, Verdict::proof)
    }
}

/// The endpoints of one cluster, in the order of its members; `None` while the Envoy has to keep
/// those it has. `starting` is an agent within [`STARTING`](crate::freshness::STARTING) of its start.
pub fn endpoints(members: &[Member<'_>], starting: bool) -> Option<Vec<EndpointHealth>> {
    let several = members.len() > 1;
    let state = |member: &Member<'_>| match member.proof() {
        // The cluster falls back to RDS's own name, which knows the writer better.
        Proof::LastResort if several && member.server.wanted == WantedRole::Writer => State::Down,
        _ => member.state(),
    };
    if members.iter().all(|member| state(member) == State::Unknown) {
        return None;
    }
    // Of two that may be the writer one is not, and Envoy would use both.
    let unknown = members.iter().filter(|member| state(member) == State::Unknown).count();
    let writes = members.iter().any(|member| member.server.wanted == WantedRole::Writer);
    if writes && unknown > 1 && !members.iter().any(|member| state(member) == State::Up) {
        return None;
    }
    // The previous agent may have taken it out for a reason that this one has yet to see, and what
    // is only remembered may have changed.
    let unseen = |member: &Member<'_>| matches!(member.proof(), Proof::Unproved | Proof::Remembered);
    if starting && members.iter().any(unseen) {
        return None;
    }
    let writes_elsewhere = members.iter().any(|member| state(member) == State::Up);
    let health = |member: &Member<'_>| match state(member) {
        _ if member.drained => EndpointHealth::Draining,
        State::Up => EndpointHealth::Healthy,
        // Not DRAINING: Envoy would keep that when the agent dies, and send nothing there when all
        // others are gone.
        State::Drain => EndpointHealth::Degraded,
        State::Down => EndpointHealth::Unhealthy,
        State::Unknown if member.server.wanted == WantedRole::Writer && writes_elsewhere => {
            EndpointHealth::Unhealthy
        }
        State::Unknown => EndpointHealth::Healthy,
    };
    let endpoints: Vec<EndpointHealth> = members.iter().map(health).collect();
    // The previous endpoints are better than a cluster that lacks a proved server for want of an
    // address. A server without address or proof must not keep the others from being sent.
    let missing = members.iter().zip(&endpoints).any(|(member, health)| {
        let proved = *health == EndpointHealth::Healthy && member.proof() == Proof::Proved;
        !member.resolved && (proved || starting)
    });
    (!missing).then_some(endpoints)
}

#[cfg(test)]
mod tests {
    use super::{EndpointHealth as H, *};
    use crate::{InstanceId, ProxyIndex, ServerId, Time, health::VerdictReason};

    /// A cluster of three with these verdicts, in order `a`, `b`, `c`.
    struct Case {
        servers: Vec<ServerConfig>,
        verdicts: Vec<Verdict>,
        resolved: [bool; 3],
        starting: bool,
    }

    fn case(wanted: WantedRole, states: [State; 3]) -> Case {
        let server = |name: &str| ServerConfig {
            id: ServerId::new(ProxyIndex(0), "w", name),
            instance: InstanceId::new("orders", name),
            wanted,
            commandable: false,
        };
        let verdict = |state| Verdict { state, reason: VerdictReason::Proved, since: Time::AGENT_START };
        Case {
            servers: ["a", "b", "c"].map(server).into(),
            verdicts: states.map(verdict).into(),
            resolved: [true; 3],
            starting: false,
        }
    }

    impl Case {
        fn health(&self, drained: &[&str]) -> Option<Vec<H>> {
            let members: Vec<Member<'_>> = self
                .servers
                .iter()
                .zip(&self.verdicts)
                .zip(self.resolved)
                .map(|((server, verdict), resolved)| {
                    let drained = drained.contains(&&*server.id.server);
                    Member { server, verdict: Some(verdict), drained, resolved }
                })
                .collect();
            endpoints(&members, self.starting)
        }
    }

    #[test]
    fn a_verdict_is_an_endpoints_health() {
        use State as S;
        let reader = case(WantedRole::Reader, [S::Up, S::Drain, S::Down]);
        assert_eq!(reader.health(&[]), Some(vec![H::Healthy, H::Degraded, H::Unhealthy]));
        assert_eq!(reader.health(&["a"]), Some(vec![H::Draining, H::Degraded, H::Unhealthy]));
    }

    #[test]
    fn an_unknown_state_takes_nothing_away() {
        use State as S;
        let nothing = case(WantedRole::Writer, [S::Unknown; 3]);
        assert_eq!(nothing.health(&[]), None, "Envoy keeps what it has");
        let silent = case(WantedRole::Writer, [S::Unknown, S::Down, S::Down]);
        assert_eq!(silent.health(&[]), Some(vec![H::Healthy, H::Unhealthy, H::Unhealthy]));
        let reader = case(WantedRole::Reader, [S::Up, S::Unknown, S::Down]);
        assert_eq!(reader.health(&[]), Some(vec![H::Healthy, H::Healthy, H::Unhealthy]));
    }

    #[test]
    fn of_several_that_may_be_the_writer_nothing_is_sent() {
        use State as S;
        let two = case(WantedRole::Writer, [S::Unknown, S::Unknown, S::Down]);
        assert_eq!(two.health(&[]), None, "both would take writes");
        let readers = case(WantedRole::Reader, [S::Unknown, S::Unknown, S::Down]);
        assert_eq!(readers.health(&[]), Some(vec![H::Healthy, H::Healthy, H::Unhealthy]));
    }

    #[test]
    fn a_released_writer_is_left_to_the_name_that_rds_keeps() {
        let mut writer = case(WantedRole::Writer, [State::Up, State::Down, State::Down]);
        writer.verdicts[0].reason = VerdictReason::Released;
        assert_eq!(writer.health(&[]), Some(vec![H::Unhealthy; 3]));
        let mut reader = case(WantedRole::Reader, [State::Up, State::Up, State::Down]);
        reader.verdicts[0].reason = VerdictReason::Released;
        assert_eq!(reader.health(&[]), Some(vec![H::Healthy, H::Healthy, H::Unhealthy]));
    }

    #[test]
    fn beside_a_proved_writer_no_other_takes_writes() {
        let one = case(WantedRole::Writer, [State::Up, State::Unknown, State::Down]);
        assert_eq!(one.health(&[]), Some(vec![H::Healthy, H::Unhealthy, H::Unhealthy]));
    }

    #[test]
    fn a_last_resort_takes_reads_and_no_writes() {
        for (wanted, health) in [(WantedRole::Writer, H::Unhealthy), (WantedRole::Reader, H::Healthy)] {
            let mut case = case(wanted, [State::Down, State::Up, State::Up]);
            for verdict in case.verdicts.iter_mut().filter(|verdict| verdict.state == State::Up) {
                verdict.reason = VerdictReason::OnlyServerKept;
            }
            assert_eq!(case.health(&[]), Some(vec![H::Unhealthy, health, health]));
        }
    }

    #[test]
    fn endpoints_are_kept_while_a_usable_server_has_no_address() {
        let mut one = case(WantedRole::Writer, [State::Up, State::Down, State::Down]);
        one.resolved[1] = false;
        assert!(one.health(&[]).is_some(), "an unusable server needs no address");
        one.resolved[0] = false;
        assert_eq!(one.health(&[]), None);
    }

    #[test]
    fn a_new_agent_withholds_a_cluster_until_it_has_seen_all_of_it() {
        let mut one = case(WantedRole::Reader, [State::Up, State::Unknown, State::Down]);
        one.starting = true;
        one.verdicts[1].reason = VerdictReason::NotProbedYet;
        assert_eq!(one.health(&[]), None);
        one.verdicts[1].reason = VerdictReason::SilentKept;
        assert!(one.health(&[]).is_some(), "it has been probed");
        one.verdicts[1].reason = VerdictReason::NotProbedYet;
        one.starting = false;
        assert!(one.health(&[]).is_some(), "it cannot be probed, and others can");
    }
}
