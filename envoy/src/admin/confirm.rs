//! Whether Envoy has what it was sent.
//!
//! Pure. A difference that lasts means that a push did not arrive, was refused, or that
//! somebody else configures the same cluster; one that passes is a push under way.

use std::{fmt, net::SocketAddr};

use super::{Clusters, Host, HostHealth};
use crate::eds::{Cluster, Health};

/// One thing that is not as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Envoy has no such cluster.
    NoCluster {
        /// Its name.
        cluster: String,
    },
    /// Envoy lacks an endpoint.
    Missing {
        /// The cluster.
        cluster: String,
        /// The endpoint's name.
        endpoint: String,
    },
    /// Envoy has an endpoint that it was not sent.
    Extra {
        /// The cluster.
        cluster: String,
        /// Where it is.
        address: SocketAddr,
    },
    /// Envoy thinks otherwise of an endpoint.
    Health {
        /// The cluster.
        cluster: String,
        /// The endpoint's name.
        endpoint: String,
        /// What was sent.
        sent: &'static str,
        /// What it shows.
        shown: &'static str,
    },
}

/// What Envoy does not have as it was sent. Clusters of which nothing was sent are passed over.
pub fn confirm(sent: &[Cluster], clusters: &Clusters) -> Vec<Difference> {
    let mut differences = Vec::new();
    for cluster in sent {
        let Some(endpoints) = &cluster.endpoints else { continue };
        let name = || cluster.name.clone();
        let Some(hosts) = clusters.clusters.get(&cluster.name) else {
            differences.push(Difference::NoCluster { cluster: name() });
            continue;
        };
        // One without addresses is not sent.
        let sent = || endpoints.iter().filter(|endpoint| !endpoint.addresses.is_empty());
        for endpoint in sent() {
            let has = |host: &&Host| host.address.is_some_and(|it| endpoint.addresses.contains(&it));
            let endpoint_name = || endpoint.name.clone();
            match hosts.iter().find(has) {
                None => differences.push(Difference::Missing { cluster: name(), endpoint: endpoint_name() }),
                Some(host) if shown(host.health) == word(endpoint.health) => {}
                Some(host) => differences.push(Difference::Health {
                    cluster: name(),
                    endpoint: endpoint_name(),
                    sent: word(endpoint.health),
                    shown: shown(host.health),
                }),
            }
        }
        let known = |address: &SocketAddr| sent().any(|endpoint| endpoint.addresses.contains(address));
        let extra = hosts.iter().filter_map(|host| host.address).filter(|address| !known(address));
        differences.extend(extra.map(|address| Difference::Extra { cluster: name(), address }));
    }
    differences.sort();
    differences.dedup();
    differences
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "HEALTHY",
        Health::Draining => "DRAINING",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
    }
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
