//! The waiting room: what clients meet while no endpoint of a cluster takes sessions.
//!
//! Envoy closes a client at once when a cluster has no healthy host. With a healthy host that refuses
//! connections, at a lower priority, the client waits instead: `tcp_proxy` retries, with a backoff, and
//! chooses a host anew for each attempt (`max_connect_attempts`, `backoff_options`). It reaches the next
//! writer with the first attempt after the failover.
//!
//! While a cluster has this host, an aggregate cluster never falls back to its next one, which is DNS. So
//! the host is only sent for a limited time after the last usable endpoint was lost, and once each time.
//! An agent that dies meanwhile cannot withdraw it: `endpoint_stale_after` in the same assignment makes
//! Envoy drop all endpoints of the cluster, and fall back, after the same time.
//!
//! Pure: time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use tokio::time::Instant;

use super::{Cluster, Health, Snapshot};

/// How long clients wait before the cluster falls back to DNS. Most clients give a connection attempt
/// 10 s; a failover that takes longer is better served by RDS's own name, which has moved by then.
pub const LIMIT: Duration = Duration::from_secs(15);

/// Where nothing listens, on the host of the Envoy: the discard port.
pub const REFUSING: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9));

/// The name of the refusing endpoint.
pub const NAME: &str = "wait";

/// The waiting rooms of all clusters of one agent.
#[derive(Debug)]
pub struct WaitingRooms {
    limit: Duration,
    /// Clusters without a usable endpoint, and since when.
    unusable: BTreeMap<String, Instant>,
}

impl WaitingRooms {
    pub fn new(limit: Duration) -> Self {
        Self { limit, unusable: BTreeMap::new() }
    }

    /// Makes a snapshot in which the clusters that have just lost their last usable endpoint have the
    /// refusing one, and says when to call again at the latest. Call it for every change, and then.
    pub fn snapshot(&mut self, clusters: Vec<Cluster>, now: Instant) -> (Snapshot, Option<Instant>) {
        let unusable = |cluster: &&Cluster| {
            let usable = |health| matches!(health, Health::Healthy | Health::Degraded);
            let endpoints = cluster.endpoints.as_deref().unwrap_or_default();
            !endpoints.is_empty() && !endpoints.iter().any(|endpoint| usable(endpoint.health))
        };
        let names = clusters.iter().filter(unusable).map(|cluster| cluster.name.clone());
        let since = |name: String| {
            let since = self.unusable.get(&name).copied().unwrap_or(now);
            (name, since)
        };
        self.unusable = names.map(since).collect();
        let ends = self.unusable.iter().map(|(name, since)| (name, *since + self.limit));
        let open: Vec<_> = ends.filter(|(_, end)| *end > now).collect();
        let next = open.iter().map(|(_, end)| *end).min();
        let open: BTreeSet<&str> = open.into_iter().map(|(name, _)| name.as_str()).collect();
        (Snapshot::with_waiting_rooms(clusters, &open, self.limit), next)
    }
}

impl Default for WaitingRooms {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Endpoint, *};

    fn cluster(health: &[Health]) -> Vec<Cluster> {
        let endpoint = |(number, health): (usize, &Health)| Endpoint {
            name: number.to_string(),
            addresses: vec![([10, 0, 0, u8::try_from(number).unwrap()], 5432).into()],
            health: *health,
        };
        vec![Cluster { name: "w".into(), endpoints: Some(health.iter().enumerate().map(endpoint).collect()) }]
    }

    /// Whether clients wait, and when the next call is due.
    fn waits(rooms: &mut WaitingRooms, health: &[Health], now: Instant) -> (bool, Option<Duration>) {
        let (snapshot, next) = rooms.snapshot(cluster(health), now);
        let message = snapshot.sent("w").unwrap();
        let room = message.endpoints.iter().find(|locality| locality.priority == 1);
        let policy = message.policy.unwrap();
        assert_eq!(policy.endpoint_stale_after.is_some(), room.is_some());
        (room.is_some(), next.map(|next| next - now))
    }

    const LOST: [Health; 2] = [Health::Unhealthy, Health::Draining];
    const USABLE: [Health; 2] = [Health::Unhealthy, Health::Healthy];

    #[test]
    fn clients_wait_while_no_endpoint_is_usable_and_for_a_limited_time() {
        let (mut rooms, start) = (WaitingRooms::default(), Instant::now());
        assert_eq!(waits(&mut rooms, &USABLE, start), (false, None));
        assert_eq!(waits(&mut rooms, &LOST, start), (true, Some(LIMIT)));
        let later = start + LIMIT / 3;
        assert_eq!(waits(&mut rooms, &LOST, later), (true, Some(LIMIT / 3 * 2)));
        assert_eq!(waits(&mut rooms, &LOST, start + LIMIT), (false, None));
        assert_eq!(waits(&mut rooms, &LOST, start + LIMIT * 2), (false, None), "once each time");
    }

    #[test]
    fn a_usable_endpoint_ends_the_wait_and_allows_the_next_one() {
        let (mut rooms, start) = (WaitingRooms::default(), Instant::now());
        waits(&mut rooms, &LOST, start);
        for usable in [&USABLE[..], &[Health::Degraded]] {
            assert_eq!(waits(&mut rooms, usable, start + LIMIT * 2), (false, None));
        }
        assert_eq!(waits(&mut rooms, &LOST, start + LIMIT * 3), (true, Some(LIMIT)));
    }

    #[test]
    fn a_cluster_without_endpoints_falls_back_at_once() {
        let (mut rooms, now) = (WaitingRooms::default(), Instant::now());
        assert_eq!(waits(&mut rooms, &[], now), (false, None));
        let pending = Cluster { name: "w".into(), endpoints: None };
        let (snapshot, next) = rooms.snapshot(vec![pending], now);
        assert!(snapshot.is_pending("w") && next.is_none());
    }

    /// Each snapshot of the same wait is the same, so that nothing is sent again.
    #[test]
    fn the_time_that_passes_changes_no_version() {
        let (mut rooms, start) = (WaitingRooms::default(), Instant::now());
        let first = rooms.snapshot(cluster(&LOST), start).0;
        assert_eq!(first, rooms.snapshot(cluster(&LOST), start + LIMIT / 2).0);
        assert_ne!(first, rooms.snapshot(cluster(&LOST), start + LIMIT).0);
    }
}
