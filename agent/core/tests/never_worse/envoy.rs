//! Envoy with the configuration of `deploy/envoy`, as far as a new client meets it: aggregate clusters of the
//! agent's endpoints and of RDS's name by DNS.
//!
//! - Sessions go to the first priority that has a healthy host: the agent's endpoints, its refusing endpoint
//!   (the waiting room), the name by DNS. Degraded endpoints come after all of them.
//! - A connection that fails is tried again, with a jittered second between two tries, 30 times in all.
//! - Without any host a client is closed at once. Below the panic threshold, health counts for nothing; the
//!   recipe sets it to 0.

use std::time::Duration;

use agent_core::{Time, desired::EndpointHealth, health::Role};

use crate::{
    haproxy::backend,
    proxy::{Next, Pick, best, mix},
    world::Names,
};

/// `max_connect_attempts`.
const ATTEMPTS: u32 = 30;

/// How long the agent lets clients wait, and `endpoint_stale_after` meanwhile; `envoy::eds` has the original.
pub const WAIT: Duration = Duration::from_secs(15);

#[derive(Clone, Debug)]
pub struct Envoy {
    pub clusters: [Cluster; 2],
    /// In percent; the recipe's is 0, Envoy's own 50.
    pub panic_threshold: usize,
    /// The reader's name is resolved to this address.
    pub reader: usize,
    pub names: Names,
}

/// The agent's part of an aggregate cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    pub endpoints: Vec<EndpointHealth>,
    /// Whether the refusing endpoint is there.
    pub room: bool,
    /// When Envoy drops the endpoints, unless others arrive.
    pub stale_at: Option<Time>,
}

impl Envoy {
    pub fn new(names: Names, reader: usize) -> Self {
        Self { clusters: <[Cluster; 2]>::default(), panic_threshold: 0, reader, names }
    }

    pub fn pick(&self, role: Role, draw: u64, now: Time) -> Pick {
        let cluster = &self.clusters[backend(role)];
        let fresh = cluster.stale_at.is_none_or(|at| now < at);
        let endpoints = if fresh { cluster.endpoints.as_slice() } else { &[] };
        let healthy: Vec<usize> = endpoints
            .iter()
            .enumerate()
            .filter(|(_, health)| **health == EndpointHealth::Healthy)
            .map(|(index, _)| index)
            .collect();
        let panics = healthy.len() * 100 < self.panic_threshold * endpoints.len();
        let server = if panics { best(0..endpoints.len(), draw) } else { best(healthy.into_iter(), draw) };
        match server {
            Some(server) => Pick::Server(server),
            None if fresh && cluster.room => Pick::Room,
            // The name always leads somewhere, so that degraded endpoints never have their turn.
            None if role == Role::Writer => Pick::Server(self.names.cluster),
            None => Pick::Server(self.reader),
        }
    }

    pub fn after_failure(tries: u32, draw: u64) -> Next {
        if tries >= ATTEMPTS {
            return Next::GiveUp;
        }
        Next::After(Duration::from_millis(mix(draw) % 1_000))
    }

    pub fn resolve(&mut self, names: &Names) {
        if !names.readers.contains(&self.reader) {
            self.reader = names.readers.first().copied().unwrap_or(names.cluster);
        }
        self.names.clone_from(names);
    }

    /// The agent's endpoints arrive.
    pub fn receive(&mut self, role: Role, endpoints: Vec<EndpointHealth>, room: bool, now: Time) {
        let cluster = &mut self.clusters[backend(role)];
        if cluster.endpoints == endpoints
            && cluster.room == room
            && cluster.stale_at.is_none_or(|at| now < at)
        {
            return;
        }
        *cluster = Cluster { endpoints, room, stale_at: room.then_some(now + WAIT) };
    }
}
