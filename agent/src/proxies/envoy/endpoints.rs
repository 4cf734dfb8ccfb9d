//! Publishes what Envoys are sent and what their health checks are answered, whenever a verdict, an
//! address or a drain changes. The rules are in [`agent_core::desired`].

use std::collections::{BTreeMap, BTreeSet};

use agent_core::{
    ServerId,
    desired::{Awake, EndpointHealth, Member, checks, endpoints},
    freshness::STARTING,
    health::{Fleet, ServerConfig},
};
use envoy::eds::{Cluster, Endpoint, Snapshot, WaitingRooms};
use futures_util::future::select_all;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    discovery::Envoys,
    drains::Drained,
    published::{Checked, CheckedEndpoint, Published, wire},
    session_addresses::Addresses,
};
use crate::shared::Shared;

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

/// Publishes for all Envoys, for ever.
pub async fn run(
    envoys: Vec<Config>,
    mut addresses: watch::Receiver<Addresses>,
    envoys_served: Envoys,
    shared: Shared,
) {
    let started = Instant::now();
    let mut drains: Vec<_> = envoys.iter().map(|envoy| envoy.drained.watch()).collect();
    let mut decided = shared.snapshot.clone();
    let mut fleet = decided.borrow_and_update().fleet.clone();
    let mut awake = Awake::default();
    // One for each Envoy, with its drains and without them.
    let mut rooms: Vec<[WaitingRooms; 2]> = envoys.iter().map(|_| <[WaitingRooms; 2]>::default()).collect();
    loop {
        let mut rooms_end: Option<Instant> = None;
        let starting = started.elapsed() < STARTING;
        let known = addresses.borrow_and_update().clone();
        let published = envoys.iter().zip(&mut drains).zip(&mut rooms).map(|((envoy, drained), rooms)| {
            let drained = drained.borrow_and_update();
            let (servers, nothing) = (&envoy.servers, BTreeSet::new());
            let clusters = clusters(servers, &fleet, &drained, &known);
            let undrained = self::clusters(servers, &fleet, &nothing, &known);
            let now = Instant::now();
            let (endpoints, end) = rooms[0].snapshot(sent(&clusters, &known, starting), now);
            let (undrained, _) = rooms[1].snapshot(sent(&undrained, &known, starting), now);
            rooms_end = rooms_end.into_iter().chain(end).min();
            Published {
                proxy: envoy.proxy.clone(),
                node: envoy.node.clone(),
                endpoints,
                undrained,
                checked: checked(&clusters, &fleet, awake, &known),
            }
        });
        envoys_served.publish(published.collect());
        envoys_served.set_decided(fleet.at);
        // The decider publishes every second at least; verdicts change rarely.
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
                    if !same || starting { break }
                    envoys_served.set_decided(fleet.at);
                }
                Ok(()) = addresses.changed() => break,
                () = sleep_until(rooms_end.unwrap_or_else(Instant::now)), if rooms_end.is_some() => break,
                _ = select_all(drain) => break,
            }
        }
    }
}

/// What is answered before the tasks of a configuration run: all clusters exist, and nothing is
/// known of them. An Envoy that asks first does not learn that a cluster is missing.
pub fn nothing_known(
    proxy: String,
    node: Option<String>,
    servers: &[ServerConfig],
    fleet: &Fleet,
) -> Published {
    let clusters = clusters(servers, fleet, &BTreeSet::new(), &Addresses::new());
    let names = clusters.keys().map(|name| Cluster { name: (*name).to_owned(), endpoints: None });
    let endpoints = Snapshot::new(names);
    let checked = checked(&clusters, fleet, Awake::default(), &Addresses::new());
    Published { proxy, node, undrained: endpoints.clone(), endpoints, checked }
}

type Clusters<'a> = BTreeMap<&'a str, Vec<Member<'a>>>;

fn clusters<'a>(
    servers: &'a [ServerConfig],
    fleet: &'a Fleet,
    drained: &BTreeSet<ServerId>,
    addresses: &Addresses,
) -> Clusters<'a> {
    let mut clusters = Clusters::new();
    for server in servers {
        clusters.entry(&server.id.backend).or_default().push(Member {
            server,
            verdict: fleet.servers.get(&server.id),
            drained: drained.contains(&server.id),
            resolved: addresses.get(&server.instance).is_some_and(|addresses| !addresses.is_empty()),
        });
    }
    clusters
}

fn sent(clusters: &Clusters<'_>, addresses: &Addresses, starting: bool) -> Vec<Cluster> {
    let cluster = |(name, members): (&&str, &Vec<Member<'_>>)| {
        let endpoint = |(member, health): (&Member<'_>, EndpointHealth)| Endpoint {
            name: member.server.id.server.to_string(),
            addresses: addresses.get(&member.server.instance).cloned().unwrap_or_default(),
            health: wire(health),
        };
        let endpoints = endpoints(members, starting);
        Cluster {
            name: (*name).to_owned(),
            endpoints: endpoints.map(|health| members.iter().zip(health).map(endpoint).collect()),
        }
    };
    clusters.iter().map(cluster).collect()
}

fn checked(clusters: &Clusters<'_>, fleet: &Fleet, awake: Awake, addresses: &Addresses) -> Checked {
    let endpoints = |(name, members): (&&str, &Vec<Member<'_>>)| {
        let endpoints = members.iter().zip(checks(members, fleet, awake)).map(|(member, check)| {
            let addresses = addresses.get(&member.server.instance).into_iter().flatten();
            CheckedEndpoint {
                name: member.server.id.server.to_string(),
                addresses: addresses.map(ToString::to_string).collect(),
                check,
            }
        });
        ((*name).to_owned(), endpoints.collect())
    };
    clusters.iter().map(endpoints).collect()
}
