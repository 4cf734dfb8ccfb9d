//! From verdicts to the endpoints that Envoys are sent.
//!
//! What is not known takes nothing away: of a cluster about which nothing is known
//! nothing is said, and an Envoy that has endpoints of it keeps them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use agent_core::{
    InstanceId, ServerId,
    health::{Fleet, ServerConfig, State, VerdictReason, WantedRole},
};
use envoy::eds::{Cluster, Endpoint, Health, Snapshot};
use futures_util::future::select_all;
use tokio::{sync::watch, time::Instant};

use super::{
    checked::{Awake, checked},
    discovery::Told,
    drains::Drained,
};
use crate::shared::Shared;

/// How long a new agent, which may know less than the one before it, says nothing of a
/// cluster of which it has not looked at all servers yet.
const SETTLED: Duration = Duration::from_secs(10);

/// One configured Envoy, or all that share its configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name in logs and metrics.
    pub proxy: String,
    /// Its `node.id`; `None` where any will do.
    pub node: Option<String>,
    /// Its servers: cluster and instance.
    pub servers: Vec<ServerConfig>,
    /// The agent's own drains on it.
    pub drained: Drained,
}

/// Tells all Envoys what they are to know, for ever.
pub async fn run(envoys: Vec<Config>, mut addresses: watch::Receiver<Addresses>, shared: Shared) {
    let settled = Instant::now() + SETTLED;
    let mut drains: Vec<_> = envoys.iter().map(|envoy| envoy.drained.watch()).collect();
    let mut decided = shared.snapshot.clone();
    let mut fleet = decided.borrow_and_update().fleet.clone();
    let mut awake = Awake::default();
    loop {
        let settling = Instant::now() < settled;
        let known = addresses.borrow_and_update().clone();
        let told = envoys.iter().zip(&mut drains).map(|(envoy, drained)| {
            let drained = drained.borrow_and_update();
            Told {
                proxy: envoy.proxy.clone(),
                node: envoy.node.clone(),
                endpoints: snapshot(&envoy.servers, &fleet, &drained, &known, settling),
                undrained: snapshot(&envoy.servers, &fleet, &BTreeSet::new(), &known, settling),
                checked: checked(&envoy.servers, &fleet, awake, &drained, &known),
            }
        });
        shared.envoys.publish(told.collect());
        // The decider publishes every second at least; what it says of servers changes rarely.
        loop {
            let drain = drains.iter_mut().map(|drained| Box::pin(drained.changed()));
            tokio::select! {
                changed = decided.changed() => {
                    if changed.is_err() {
                        // Everything stops.
                        return std::future::pending().await;
                    }
                    let next = decided.borrow_and_update().fleet.clone();
                    let unsure = |awake: Awake, fleet: &Fleet| {
                        envoys.iter().any(|envoy| awake.is_unsure(&envoy.servers, fleet))
                    };
                    let was_unsure = unsure(awake, &fleet);
                    awake.look(&next);
                    let same = next.servers == fleet.servers && !was_unsure && !unsure(awake, &next);
                    fleet = next;
                    if !same || settling { break }
                }
                Ok(()) = addresses.changed() => break,
                _ = select_all(drain) => break,
            }
        }
    }
}

/// Where each instance is, as far as its name could be resolved.
pub type Addresses = BTreeMap<InstanceId, Vec<SocketAddr>>;

/// The endpoints of all clusters at this moment. `settling` is an agent that has just begun.
fn snapshot(
    servers: &[ServerConfig],
    fleet: &Fleet,
    drained: &BTreeSet<ServerId>,
    addresses: &Addresses,
    settling: bool,
) -> Snapshot {
    let mut clusters: BTreeMap<&str, Vec<&ServerConfig>> = BTreeMap::new();
    for server in servers {
        clusters.entry(&server.id.backend).or_default().push(server);
    }
    Snapshot::new(clusters.into_iter().map(|(name, members)| Cluster {
        name: name.to_owned(),
        endpoints: endpoints(&members, fleet, drained, addresses, settling),
    }))
}

/// The endpoints of one cluster, or `None` while there is nothing to go by.
fn endpoints(
    members: &[&ServerConfig],
    fleet: &Fleet,
    drained: &BTreeSet<ServerId>,
    addresses: &Addresses,
    settling: bool,
) -> Option<Vec<Endpoint>> {
    let several = members.len() > 1;
    let state = |server: &ServerConfig| match fleet.servers.get(&server.id) {
        None => State::Unknown,
        // RDS's name, to which the cluster falls back, knows the writer better than a last resort.
        Some(it)
            if several && server.wanted == WantedRole::Writer && it.reason == VerdictReason::LastResort =>
        {
            State::Down
        }
        Some(it) => it.state,
    };
    if members.iter().all(|server| state(server) == State::Unknown) {
        return None;
    }
    // A former agent may have taken it out for what this one is about to see, and what is only
    // remembered may have changed since.
    let unseen = |server: &&ServerConfig| {
        use VerdictReason::{LastKnown, NotProbedYet};
        fleet.servers.get(&server.id).is_none_or(|it| matches!(it.reason, NotProbedYet | LastKnown))
    };
    if settling && members.iter().any(unseen) {
        return None;
    }
    let proved = members.iter().any(|server| state(server) == State::Up);
    let endpoint = |server: &&ServerConfig| Endpoint {
        name: server.id.server.to_string(),
        addresses: addresses.get(&server.instance).cloned().unwrap_or_default(),
        health: if drained.contains(&server.id) {
            Health::Draining
        } else {
            health(state(server), server.wanted, proved)
        },
    };
    let endpoints: Vec<Endpoint> = members.iter().map(endpoint).collect();
    // Better the endpoints of before than a cluster that lacks one that is proved. One without an
    // address that has proved nothing would only keep the others from being told of.
    let reason = |server: &ServerConfig| fleet.servers.get(&server.id).map(|it| it.reason);
    let lost = members.iter().zip(&endpoints).any(|(server, endpoint)| {
        let proved = endpoint.health == Health::Healthy && reason(server) == Some(VerdictReason::Proved);
        endpoint.addresses.is_empty() && (proved || settling)
    });
    if lost { None } else { Some(endpoints) }
}

/// What a verdict is in Envoy's words. `proved` says whether any server of the cluster is
/// known to be usable.
fn health(state: State, wanted: WantedRole, proved: bool) -> Health {
    match state {
        State::Up => Health::Healthy,
        // Not DRAINING: Envoy would keep that when the agent dies, and send nothing there when
        // all others are gone.
        State::Drain => Health::Degraded,
        State::Down => Health::Unhealthy,
        // There is one writer, and it is another.
        State::Unknown if wanted == WantedRole::Writer && proved => Health::Unhealthy,
        State::Unknown => Health::Healthy,
    }
}

#[cfg(test)]
mod tests {
    use agent_core::{Time, health::Verdict};

    use super::*;

    /// A cluster of three with these verdicts, in order `a`, `b`, `c`.
    struct Case {
        servers: Vec<ServerConfig>,
        fleet: Fleet,
        addresses: Addresses,
        settling: bool,
    }

    fn case(wanted: WantedRole, states: [State; 3]) -> Case {
        let mut fleet = Fleet {
            at: Time::AGENT_START,
            instances: BTreeMap::new(),
            servers: BTreeMap::new(),
            by_role: BTreeMap::new(),
        };
        let mut servers = Vec::new();
        let mut addresses = Addresses::new();
        for (place, state) in states.into_iter().enumerate() {
            let name = ["a", "b", "c"][place];
            let id = ServerId::new(0, "w", name);
            let instance = InstanceId::new("orders", name);
            let verdict = Verdict { state, reason: VerdictReason::Proved, since: Time::AGENT_START };
            fleet.servers.insert(id.clone(), verdict);
            addresses.insert(instance.clone(), vec![SocketAddr::from(([10, 0, 0, 1], 5_432))]);
            servers.push(ServerConfig { id, instance, wanted, commandable: false });
        }
        Case { servers, fleet, addresses, settling: false }
    }

    impl Case {
        fn health(&self, drained: &[&str]) -> Option<Vec<Health>> {
            let members: Vec<&ServerConfig> = self.servers.iter().collect();
            let drained = drained.iter().map(|name| ServerId::new(0, "w", name)).collect();
            let endpoints = endpoints(&members, &self.fleet, &drained, &self.addresses, self.settling)?;
            Some(endpoints.into_iter().map(|one| one.health).collect())
        }
    }

    #[test]
    fn a_verdict_is_an_endpoints_health() {
        use Health as H;
        use State as S;
        let reader = case(WantedRole::Reader, [S::Up, S::Drain, S::Down]);
        assert_eq!(reader.health(&[]), Some(vec![H::Healthy, H::Degraded, H::Unhealthy]));
        assert_eq!(reader.health(&["a"]), Some(vec![H::Draining, H::Degraded, H::Unhealthy]));
    }

    #[test]
    fn not_knowing_takes_nothing_away() {
        use Health as H;
        use State as S;
        let nothing = case(WantedRole::Writer, [S::Unknown; 3]);
        assert_eq!(nothing.health(&[]), None, "Envoy keeps what it has");
        let silent = case(WantedRole::Writer, [S::Unknown, S::Down, S::Down]);
        assert_eq!(silent.health(&[]), Some(vec![H::Healthy, H::Unhealthy, H::Unhealthy]));
        let reader = case(WantedRole::Reader, [S::Up, S::Unknown, S::Down]);
        assert_eq!(reader.health(&[]), Some(vec![H::Healthy, H::Healthy, H::Unhealthy]));
    }

    #[test]
    fn beside_a_proved_writer_no_other_takes_writes() {
        let one = case(WantedRole::Writer, [State::Up, State::Unknown, State::Down]);
        assert_eq!(one.health(&[]), Some(vec![Health::Healthy, Health::Unhealthy, Health::Unhealthy]));
    }

    #[test]
    fn a_last_resort_takes_reads_and_no_writes() {
        use Health::{Healthy, Unhealthy};
        for (wanted, health) in [(WantedRole::Writer, Unhealthy), (WantedRole::Reader, Healthy)] {
            let mut case = case(wanted, [State::Down, State::Up, State::Up]);
            for verdict in case.fleet.servers.values_mut().filter(|verdict| verdict.state == State::Up) {
                verdict.reason = VerdictReason::LastResort;
            }
            assert_eq!(case.health(&[]), Some(vec![Unhealthy, health, health]));
        }
    }

    #[test]
    fn without_the_address_of_a_usable_server_nothing_new_is_said() {
        let mut one = case(WantedRole::Writer, [State::Up, State::Down, State::Down]);
        one.addresses.remove(&InstanceId::new("orders", "b"));
        assert!(one.health(&[]).is_some(), "of one that takes nothing it does not matter");
        one.addresses.remove(&InstanceId::new("orders", "a"));
        assert_eq!(one.health(&[]), None);
    }

    #[test]
    fn a_new_agent_says_nothing_of_a_cluster_before_it_has_seen_all_of_it() {
        let mut one = case(WantedRole::Reader, [State::Up, State::Unknown, State::Down]);
        one.settling = true;
        let second = ServerId::new(0, "w", "b");
        one.fleet.servers.get_mut(&second).unwrap().reason = VerdictReason::NotProbedYet;
        assert_eq!(one.health(&[]), None);
        one.fleet.servers.get_mut(&second).unwrap().reason = VerdictReason::SilentKept;
        assert!(one.health(&[]).is_some(), "it has been looked at");
        one.fleet.servers.get_mut(&second).unwrap().reason = VerdictReason::NotProbedYet;
        one.settling = false;
        assert!(one.health(&[]).is_some(), "it cannot be looked at, and others can");
    }
}
