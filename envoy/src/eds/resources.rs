//! Clusters and endpoints, as the messages that Envoy takes.
//!
//! A snapshot is built once and read by all streams. The version of a cluster is a digest of its message, so
//! that equal content has the same version in every agent and after every restart, and an Envoy that
//! reconnects receives only what differs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::waiting_room::{self, REFUSING};
use crate::proto::{
    self, Address, Any, ClusterLoadAssignment, Endpoint as EndpointMessage, HealthStatus, LbEndpoint,
    LocalityLbEndpoints, Message, Metadata, Name, SocketAddress, Struct, UInt32Value, Value, address,
    cluster_load_assignment, endpoint, lb_endpoint, socket_address, value,
};

/// The namespace of the metadata that each endpoint carries, for
/// `%UPSTREAM_METADATA(rdslb:endpoint)%` in logs and in headers of health checks.
pub const METADATA_NAMESPACE: &str = "rdslb";

/// The key of the endpoint's name in that namespace.
pub const METADATA_KEY: &str = "endpoint";

/// The most addresses of one endpoint that are sent.
const MOST_ADDRESSES: usize = 8;

/// In percent. An aggregate cluster sends a cluster this share of the sessions, multiplied by the share of
/// its endpoints that are healthy, up to 100, and the rest to the next cluster. With Envoy's default of 140
/// that is 47 % where one of three is healthy, as in every writer's cluster.
const OVERPROVISIONING: u32 = 100_000;

/// Whether an endpoint takes new sessions. Existing sessions stay in every case.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    Healthy,
    /// Takes no new sessions: the agent drains it.
    Draining,
    /// A reduced share, or all while no other endpoint is healthy.
    Degraded,
    /// Takes no sessions.
    Unhealthy,
}

/// One endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Unique in the cluster. Envoy has it as hostname, which is the Host header of health checks, and in
    /// the metadata.
    pub name: String,
    /// Envoy does not resolve names of endpoint discovery. It tries several addresses one after the other.
    pub addresses: Vec<SocketAddr>,
    pub health: Health,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The `service_name` of its endpoint discovery, or else the cluster's name.
    pub name: String,
    /// `None` while nothing is known: then nothing is sent, and Envoy keeps the endpoints that it has.
    pub endpoints: Option<Vec<Endpoint>>,
}

/// All clusters at one moment. Immutable, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    version: String,
    resources: BTreeMap<String, Resource>,
    pending: BTreeSet<String>,
}

/// One cluster, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resource {
    pub(super) version: Arc<str>,
    pub(super) body: Any,
}

// === impl Snapshot ===

impl Snapshot {
    /// Clusters and their endpoints may be in any order: they are sorted by name.
    pub fn new(clusters: impl IntoIterator<Item = Cluster>) -> Self {
        Self::with_waiting_rooms(clusters, &BTreeSet::new(), Duration::ZERO)
    }

    /// With a refusing endpoint at priority 1 in these clusters, whose endpoints Envoy drops after
    /// `limit` without another assignment. See [`WaitingRooms`](super::WaitingRooms).
    pub(super) fn with_waiting_rooms(
        clusters: impl IntoIterator<Item = Cluster>,
        waiting: &BTreeSet<&str>,
        limit: Duration,
    ) -> Self {
        let mut inner = Inner::default();
        for Cluster { name, endpoints } in clusters {
            match endpoints {
                Some(endpoints) => {
                    let mut message = message(&name, endpoints);
                    if waiting.contains(&*name) {
                        add_waiting_room(&mut message, limit);
                    }
                    let body = message.encode_to_vec();
                    let version = digest([&*body]).into();
                    let type_url = type_url();
                    inner.resources.insert(name, Resource { version, body: Any { type_url, value: body } });
                }
                None => {
                    inner.pending.insert(name);
                }
            }
        }
        let versions = inner.resources.iter();
        inner.version =
            digest(versions.flat_map(|(name, resource)| [name.as_bytes(), resource.version.as_bytes()]));
        Self { inner: Arc::new(inner) }
    }

    pub fn version(&self) -> &str {
        &self.inner.version
    }

    /// `None` for a cluster of which nothing is sent.
    pub fn version_of(&self, cluster: &str) -> Option<&str> {
        self.get(cluster).map(|resource| &*resource.version)
    }

    /// The clusters that are sent.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.resources.keys().map(String::as_str)
    }

    /// Whether the cluster is configured, but nothing is known of it yet.
    pub fn is_pending(&self, cluster: &str) -> bool {
        self.inner.pending.contains(cluster)
    }

    /// The message of a cluster, for a comparison with what Envoy shows.
    pub(crate) fn sent(&self, cluster: &str) -> Option<ClusterLoadAssignment> {
        ClusterLoadAssignment::decode(&*self.get(cluster)?.body.value).ok()
    }

    pub(super) fn get(&self, cluster: &str) -> Option<&Resource> {
        self.inner.resources.get(cluster)
    }

    pub(super) fn entry(&self, cluster: &str) -> Option<(&str, &Resource)> {
        self.inner.resources.get_key_value(cluster).map(|(name, resource)| (&**name, resource))
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.inner.version == other.inner.version && self.inner.pending == other.inner.pending
    }
}

/// The type of all resources here.
pub(super) fn type_url() -> String {
    ClusterLoadAssignment::type_url()
}

fn message(name: &str, mut endpoints: Vec<Endpoint>) -> ClusterLoadAssignment {
    endpoints.sort_by(|a, b| a.name.cmp(&b.name));
    endpoints.dedup_by(|a, b| a.name == b.name);
    let lb_endpoints = endpoints.into_iter().filter_map(lb_endpoint).collect();
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() }],
        policy: Some(cluster_load_assignment::Policy {
            overprovisioning_factor: Some(UInt32Value { value: OVERPROVISIONING }),
            ..cluster_load_assignment::Policy::default()
        }),
        ..ClusterLoadAssignment::default()
    }
}

fn add_waiting_room(message: &mut ClusterLoadAssignment, limit: Duration) {
    let refusing =
        Endpoint { name: waiting_room::NAME.into(), addresses: vec![REFUSING], health: Health::Healthy };
    message.endpoints.push(LocalityLbEndpoints {
        lb_endpoints: lb_endpoint(refusing).into_iter().collect(),
        priority: 1,
        ..LocalityLbEndpoints::default()
    });
    if let Some(policy) = &mut message.policy {
        policy.endpoint_stale_after = Some(duration(limit));
    }
}

fn duration(duration: Duration) -> proto::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    proto::Duration { seconds, nanos: duration.subsec_nanos().cast_signed() }
}

/// `None` for an endpoint without an address.
fn lb_endpoint(endpoint: Endpoint) -> Option<LbEndpoint> {
    let mut addresses = endpoint.addresses;
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MOST_ADDRESSES);
    let mut addresses = addresses.into_iter().map(socket);
    let address = addresses.next()?;
    let additional_addresses =
        addresses.map(|address| endpoint::AdditionalAddress { address: Some(address) }).collect();
    let message = EndpointMessage {
        address: Some(address),
        hostname: endpoint.name.clone(),
        additional_addresses,
        ..EndpointMessage::default()
    };
    Some(LbEndpoint {
        health_status: status(endpoint.health).into(),
        metadata: Some(metadata(endpoint.name)),
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(message)),
        ..LbEndpoint::default()
    })
}

fn status(health: Health) -> HealthStatus {
    match health {
        Health::Healthy => HealthStatus::Healthy,
        Health::Draining => HealthStatus::Draining,
        Health::Degraded => HealthStatus::Degraded,
        Health::Unhealthy => HealthStatus::Unhealthy,
    }
}

fn socket(address: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(address.port().into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

/// One namespace with one key: larger maps are encoded in random order, so that equal content would
/// have different versions.
fn metadata(name: String) -> Metadata {
    let name = Value { kind: Some(value::Kind::StringValue(name)) };
    let fields = Struct { fields: HashMap::from([(METADATA_KEY.to_owned(), name)]) };
    Metadata {
        filter_metadata: HashMap::from([(METADATA_NAMESPACE.to_owned(), fields)]),
        ..Metadata::default()
    }
}

/// The first half of a SHA-256, in hex. Unlike the hashes of the standard library it is the same on every
/// machine and in every version of the compiler.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let first: u128 = hash.finalize().iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte));
    format!("{first:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, address: &str, health: Health) -> Endpoint {
        Endpoint { name: name.into(), addresses: vec![address.parse().unwrap()], health }
    }

    fn cluster(name: &str, endpoints: Vec<Endpoint>) -> Cluster {
        Cluster { name: name.into(), endpoints: Some(endpoints) }
    }

    fn decoded(snapshot: &Snapshot, cluster: &str) -> ClusterLoadAssignment {
        ClusterLoadAssignment::decode(&*snapshot.get(cluster).unwrap().body.value).unwrap()
    }

    #[test]
    fn equal_content_has_an_equal_version_in_any_order() {
        let a = || endpoint("a", "10.0.0.1:5432", Health::Healthy);
        let b = || endpoint("b", "10.0.0.2:5432", Health::Unhealthy);
        let one = Snapshot::new([cluster("w", vec![a(), b()]), cluster("r", vec![b(), a()])]);
        let two = Snapshot::new([cluster("r", vec![a(), b()]), cluster("w", vec![b(), a()])]);
        assert_eq!(one.version(), two.version());
        assert_eq!(one, two);
        assert_ne!(one.version_of("w"), one.version_of("r"), "the name is part of the content");
    }

    #[test]
    fn every_change_changes_the_version() {
        let base = endpoint("a", "10.0.0.1:5432", Health::Healthy);
        let changes = [
            Endpoint { name: "b".into(), ..base.clone() },
            Endpoint { addresses: vec!["10.0.0.1:5433".parse().unwrap()], ..base.clone() },
            Endpoint { health: Health::Draining, ..base.clone() },
            Endpoint { health: Health::Degraded, ..base.clone() },
            Endpoint { health: Health::Unhealthy, ..base.clone() },
        ];
        let mut versions: Vec<_> = [base].into_iter().chain(changes).collect::<Vec<_>>();
        let count = versions.len();
        let distinct: BTreeSet<String> = versions
            .drain(..)
            .map(|endpoint| Snapshot::new([cluster("w", vec![endpoint])]).version().to_owned())
            .collect();
        assert_eq!(distinct.len(), count);
    }

    #[test]
    fn an_endpoint_is_sent_with_its_name_health_and_addresses() {
        let endpoint = Endpoint {
            name: "a".into(),
            addresses: vec!["[2001:db8::1]:5432".parse().unwrap(), "10.0.0.1:5432".parse().unwrap()],
            health: Health::Draining,
        };
        let snapshot = Snapshot::new([cluster("w", vec![endpoint])]);
        let message = decoded(&snapshot, "w");
        assert_eq!(message.cluster_name, "w");
        let sent = &message.endpoints[0].lb_endpoints[0];
        assert_eq!(sent.health_status, i32::from(HealthStatus::Draining));
        let Some(lb_endpoint::HostIdentifier::Endpoint(sent)) = &sent.host_identifier else { panic!() };
        assert_eq!(sent.hostname, "a");
        assert_eq!(sent.address, Some(socket("10.0.0.1:5432".parse().unwrap())), "IPv4 first");
        assert_eq!(sent.additional_addresses.len(), 1);
    }

    #[test]
    fn an_unknown_cluster_is_not_an_empty_one() {
        let pending = Cluster { name: "w".into(), endpoints: None };
        let snapshot = Snapshot::new([pending, cluster("r", vec![])]);
        assert!(snapshot.is_pending("w") && snapshot.version_of("w").is_none());
        assert!(!snapshot.is_pending("r") && snapshot.version_of("r").is_some());
        assert_eq!(snapshot.names().collect::<Vec<_>>(), ["r"]);
        assert!(decoded(&snapshot, "r").endpoints[0].lb_endpoints.is_empty());
    }

    #[test]
    fn an_endpoint_without_an_address_is_left_out() {
        let nowhere = Endpoint { name: "a".into(), addresses: vec![], health: Health::Healthy };
        let snapshot = Snapshot::new([cluster("w", vec![nowhere])]);
        assert!(decoded(&snapshot, "w").endpoints[0].lb_endpoints.is_empty());
    }

    #[test]
    fn a_duplicate_name_is_sent_once() {
        let twice = vec![
            endpoint("a", "10.0.0.1:5432", Health::Healthy),
            endpoint("a", "10.0.0.1:5432", Health::Healthy),
        ];
        let snapshot = Snapshot::new([cluster("w", twice)]);
        assert_eq!(decoded(&snapshot, "w").endpoints[0].lb_endpoints.len(), 1);
    }
}
