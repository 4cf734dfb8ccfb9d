//! Which server a session of Envoy's goes to: its cluster and the address it is at.
//!
//! Names move to other addresses while sessions stay, so addresses are remembered.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

use agent_core::{InstanceId, ServerId, health::ServerConfig};
use tokio::time::Instant;

use super::endpoints::Addresses;

/// The suffix of the clusters that the shipped configuration falls back to.
const FALLBACK: &str = "_dns";

/// Longer than sessions may live.
const REMEMBERED: Duration = Duration::from_secs(24 * 3_600);

/// Addresses at most.
const MOST: usize = 4_096;

/// Where instances are, and were.
#[derive(Debug, Default)]
pub struct Places {
    known: HashMap<SocketAddr, (BTreeSet<InstanceId>, Instant)>,
}

impl Places {
    /// Takes in where the instances are now. An address that another one has now is that one's alone.
    pub fn learn(&mut self, addresses: &Addresses, now: Instant) {
        self.known.retain(|_, (_, seen)| now.duration_since(*seen) <= REMEMBERED);
        let mut current: HashMap<SocketAddr, BTreeSet<InstanceId>> = HashMap::new();
        for (instance, addresses) in addresses {
            for address in addresses {
                current.entry(*address).or_default().insert(instance.clone());
            }
        }
        for (address, instances) in current {
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

/// The name of a cluster that is looked after, or of what it falls back to; of any other, `other`: a
/// peer may tell of as many as it likes, and what names series has to have an end.
pub fn label<'a>(servers: &[ServerConfig], cluster: Option<&'a str>) -> &'a str {
    let Some(cluster) = cluster else { return "-" };
    let is = |name: &str| servers.iter().any(|server| *server.id.backend == *name);
    let known = is(cluster) || cluster.strip_suffix(FALLBACK).is_some_and(is);
    if known { cluster } else { "other" }
}

#[cfg(test)]
mod tests {
    use agent_core::health::WantedRole;

    use super::*;

    #[test]
    fn a_session_is_found_by_its_cluster_and_its_address() {
        let instance = |name| InstanceId::new("orders", name);
        let servers: Vec<ServerConfig> = [("w", "a"), ("w", "b"), ("r", "a"), ("r", "b")]
            .map(|(backend, name)| ServerConfig {
                id: ServerId::new(0, backend, name),
                instance: instance(name),
                wanted: WantedRole::Any,
                commandable: false,
            })
            .into();
        let address = |last| SocketAddr::from(([10, 0, 0, last], 5_432));
        let mut places = Places::default();
        let now = Instant::now();
        let at =
            |a, b| Addresses::from([(instance("a"), vec![address(a)]), (instance("b"), vec![address(b)])]);
        places.learn(&at(1, 2), now);
        let server = |places: &Places, cluster, last| {
            places.server(&servers, cluster, address(last)).map(ToString::to_string)
        };
        assert_eq!(server(&places, "w", 1).as_deref(), Some("w/a"));
        assert_eq!(server(&places, "r", 2).as_deref(), Some("r/b"));
        assert_eq!(server(&places, "r_dns", 2).as_deref(), Some("r/b"), "what Envoy falls back to");
        assert_eq!(server(&places, "w", 3), None);
        assert_eq!(server(&places, "other", 1), None);
        let labels = ["w", "r_dns", "x", "x_dns"].map(|cluster| label(&servers, Some(cluster)));
        assert_eq!(labels, ["w", "r_dns", "other", "other"]);
        // The name has moved; sessions have not.
        places.learn(&at(3, 2), now + Duration::from_secs(60));
        assert_eq!(server(&places, "w", 1).as_deref(), Some("w/a"));
        assert_eq!(server(&places, "w", 3).as_deref(), Some("w/a"));
        // Two names for one address: ambiguous.
        places.learn(&at(4, 4), now);
        assert_eq!(server(&places, "w", 4), None);
        places.learn(&Addresses::new(), now + REMEMBERED * 2);
        assert_eq!(server(&places, "w", 2), None);
    }
}
