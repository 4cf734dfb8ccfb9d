//! Compares Envoy's endpoints with those that were sent.
//!
//! Pure. A short difference is an update in progress. A lasting one means that an update was lost or rejected,
//! or that another control plane configures the same cluster.

use std::{fmt, net::SocketAddr};

use super::{Clusters, Host, HostHealth};
use crate::{
    access_log::entry::socket_address,
    eds::Snapshot,
    proto::{HealthStatus, lb_endpoint},
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    NoCluster {
        cluster: String,
    },
    Missing {
        cluster: String,
        endpoint: String,
    },
    /// An endpoint that was not sent.
    Extra {
        cluster: String,
        address: SocketAddr,
    },
    Health {
        cluster: String,
        endpoint: String,
        sent: &'static str,
        shown: &'static str,
    },
}

/// What Envoy does not have as it was sent. Clusters of which nothing is sent are passed over.
pub fn confirm(sent: &Snapshot, clusters: &Clusters) -> Vec<Difference> {
    let mut differences = Vec::new();
    for name in sent.names() {
        let cluster = || name.to_owned();
        let Some(hosts) = clusters.clusters.get(name) else {
            differences.push(Difference::NoCluster { cluster: cluster() });
            continue;
        };
        let endpoints = endpoints(sent, name);
        for endpoint in &endpoints {
            let has = |host: &&Host| host.address.is_some_and(|it| endpoint.addresses.contains(&it));
            let name = || endpoint.name.clone();
            match hosts.iter().find(has) {
                None => differences.push(Difference::Missing { cluster: cluster(), endpoint: name() }),
                Some(host) if shown(host.health) == endpoint.health => {}
                Some(host) => differences.push(Difference::Health {
                    cluster: cluster(),
                    endpoint: name(),
                    sent: endpoint.health,
                    shown: shown(host.health),
                }),
            }
        }
        let known = |address: &SocketAddr| endpoints.iter().any(|it| it.addresses.contains(address));
        let extra = hosts.iter().filter_map(|host| host.address).filter(|address| !known(address));
        differences.extend(extra.map(|address| Difference::Extra { cluster: cluster(), address }));
    }
    differences.sort();
    differences.dedup();
    differences
}

/// One endpoint, as it is sent.
struct Sent {
    name: String,
    addresses: Vec<SocketAddr>,
    health: &'static str,
}

fn endpoints(sent: &Snapshot, cluster: &str) -> Vec<Sent> {
    let localities = sent.sent(cluster).into_iter().flat_map(|message| message.endpoints);
    let all = localities.flat_map(|locality| locality.lb_endpoints);
    all.filter_map(|message| {
        let health = match message.health_status() {
            HealthStatus::Draining => "DRAINING",
            HealthStatus::Degraded => "DEGRADED",
            HealthStatus::Unhealthy | HealthStatus::Timeout => "UNHEALTHY",
            HealthStatus::Healthy | HealthStatus::Unknown => "HEALTHY",
        };
        let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = message.host_identifier else {
            return None;
        };
        let others = endpoint.additional_addresses.iter().map(|other| other.address.as_ref());
        let addresses = std::iter::once(endpoint.address.as_ref()).chain(others).filter_map(socket_address);
        Some(Sent { addresses: addresses.collect(), name: endpoint.hostname, health })
    })
    .collect()
}

fn shown(health: HostHealth) -> &'static str {
    match health {
        HostHealth::Healthy => "HEALTHY",
        HostHealth::Draining => "DRAINING",
        HostHealth::Degraded => "DEGRADED",
        HostHealth::Unhealthy => "UNHEALTHY",
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCluster { cluster } => write!(f, "{cluster}: no such cluster"),
            Self::Missing { cluster, endpoint } => write!(f, "{cluster}/{endpoint}: not there"),
            Self::Extra { cluster, address } => write!(f, "{cluster}: {address} was not sent"),
            Self::Health { cluster, endpoint, sent, shown } => {
                write!(f, "{cluster}/{endpoint}: sent as {sent}, shown as {shown}")
            }
        }
    }
}
