//! Maps a session of Envoy to its server, by cluster and server address.
//!
//! A name can move to another address while sessions to the old one stay open, so old addresses are
//! remembered.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

use agent_core::{DatabaseName, InstanceId, ServerId, health::ServerConfig};
use tokio::time::Instant;

/// The addresses of each instance, as far as its name could be resolved.
pub type Addresses = BTreeMap<InstanceId, Vec<SocketAddr>>;

/// The suffix of the fallback clusters in the shipped configuration.
const FALLBACK: &str = "_dns";

/// Longer than any session lives.
const REMEMBERED: Duration = Duration::from_secs(24 * 3_600);

/// The most addresses that are kept.
const MOST: usize = 4_096;

/// The current and former addresses of the instances.
#[derive(Debug, Default)]
pub struct SessionAddresses {
    known: HashMap<SocketAddr, (BTreeSet<InstanceId>, Instant)>,
}

impl SessionAddresses {
    /// Adds the current addresses. An address that now belongs to another instance is no longer the former's.
    pub fn update(&mut self, current: &Addresses, now: Instant) {
        self.known.retain(|_, (_, seen)| now.duration_since(*seen) <= REMEMBERED);
        let mut by_address: HashMap<SocketAddr, BTreeSet<InstanceId>> = HashMap::new();
        for (instance, addresses) in current {
            for address in addresses {
                by_address.entry(*address).or_default().insert(instance.clone());
            }
        }
        for (address, instances) in by_address {
            if self.known.len() < MOST || self.known.contains_key(&address) {
                self.known.insert(address, (instances, now));
            }
        }
    }

    /// The server of a session in this cluster, to this address, if there is exactly one.
    pub fn server<'a>(
        &self,
        servers: &'a [ServerConfig],
        cluster: &str,
        peer: SocketAddr,
    ) -> Option<&'a ServerId> {
        let (instances, _) = self.known.get(&peer)?;
        let main = cluster.strip_suffix(FALLBACK);
        let of = |name: &str| {
            let mut found = servers
                .iter()
                .filter(|server| *server.id.backend == *name && instances.contains(&server.instance));
            let first = found.next()?;
            found.next().is_none().then_some(&first.id)
        };
        of(cluster).or_else(|| of(main?))
    }
}

/// The metric label of a cluster: the name of a configured cluster or its fallback, else `other`. A peer can
/// report any number of names, and the number of series has to stay bounded.
pub fn label<'a>(servers: &[ServerConfig], cluster: Option<&'a str>) -> &'a str {
    let Some(cluster) = cluster else { return "-" };
    let is = |name: &str| servers.iter().any(|server| *server.id.backend == *name);
    let known = is(cluster) || cluster.strip_suffix(FALLBACK).is_some_and(is);
    if known { cluster } else { "other" }
}

/// The database of a cluster or of its fallback, if it is configured.
pub fn database(servers: &[ServerConfig], cluster: &str) -> Option<DatabaseName> {
    let of = |name: &str| servers.iter().find(|server| *server.id.backend == *name);
    let server = of(cluster).or_else(|| of(cluster.strip_suffix(FALLBACK)?))?;
    Some(server.instance.database.clone())
}

#[cfg(test)]
mod tests {
    use agent_core::{ProxyIndex, health::WantedRole};

    use super::*;

    #[test]
    fn a_session_is_found_by_its_cluster_and_its_address() {
        let instance = |name| InstanceId::new("orders", name);
        let servers: Vec<ServerConfig> = [("w", "a"), ("w", "b"), ("r", "a"), ("r", "b")]
            .map(|(backend, name)| ServerConfig {
                id: ServerId::new(ProxyIndex(0), backend, name),
                instance: instance(name),
                wanted: WantedRole::Any,
                commandable: false,
            })
            .into();
        let address = |last| SocketAddr::from(([10, 0, 0, last], 5_432));
        let mut addresses = SessionAddresses::default();
        let now = Instant::now();
        let at =
            |a, b| Addresses::from([(instance("a"), vec![address(a)]), (instance("b"), vec![address(b)])]);
        addresses.update(&at(1, 2), now);
        let server = |addresses: &SessionAddresses, cluster, last| {
            addresses.server(&servers, cluster, address(last)).map(ToString::to_string)
        };
        assert_eq!(server(&addresses, "w", 1).as_deref(), Some("w/a"));
        assert_eq!(server(&addresses, "r", 2).as_deref(), Some("r/b"));
        assert_eq!(server(&addresses, "r_dns", 2).as_deref(), Some("r/b"), "the fallback cluster");
        assert_eq!(server(&addresses, "w", 3), None);
        assert_eq!(server(&addresses, "other", 1), None);
        let labels = ["w", "r_dns", "x", "x_dns"].map(|cluster| label(&servers, Some(cluster)));
        assert_eq!(labels, ["w", "r_dns", "other", "other"]);
        // The name has moved; sessions have not.
        addresses.update(&at(3, 2), now + Duration::from_secs(60));
        assert_eq!(server(&addresses, "w", 1).as_deref(), Some("w/a"));
        assert_eq!(server(&addresses, "w", 3).as_deref(), Some("w/a"));
        // Two names for one address: ambiguous.
        addresses.update(&at(4, 4), now);
        assert_eq!(server(&addresses, "w", 4), None);
        addresses.update(&Addresses::new(), now + REMEMBERED * 2);
        assert_eq!(server(&addresses, "w", 2), None);
    }
}
