//! The state that is published to Envoys and to their health checks. Plain data; `endpoints` makes it.

use std::{collections::BTreeMap, sync::Arc};

use agent_core::desired::{Check, EndpointHealth};
use envoy::eds::{self, Health, Snapshot};

/// The published state of one configured Envoy.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its name in logs and metrics.
    pub proxy: String,
    /// Its `node.id`; `None` where any will do.
    pub node: Option<String>,
    pub endpoints: Snapshot,
    /// The same without the drains of the agent's own: what is left when it stops.
    pub undrained: Snapshot,
    /// What health checks are answered.
    pub checked: Checked,
}

/// The published state of all Envoys. Immutable.
#[derive(Clone, Debug, Default)]
pub struct Endpoints(pub Arc<Vec<Published>>);

/// The endpoints of each cluster, by its name.
pub type Checked = BTreeMap<String, Vec<CheckedEndpoint>>;

/// One endpoint, as checks name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedEndpoint {
    pub name: String,
    /// Its addresses, `IP:PORT`.
    pub addresses: Vec<String>,
    pub check: Check,
}

// === impl Endpoints ===

impl Endpoints {
    pub(super) fn of(&self, node: &str) -> Option<&Published> {
        self.0.iter().find(|published| published.node.as_deref().is_none_or(|own| own == node))
    }

    /// The same without the drains of the agent's own.
    pub(super) fn undrained(&self) -> Self {
        let undrained =
            |published: &Published| Published { endpoints: published.undrained.clone(), ..published.clone() };
        Self(Arc::new(self.0.iter().map(undrained).collect()))
    }

    /// The endpoints of a configured Envoy, by its name.
    pub fn sent_to(&self, proxy: &str) -> Option<Snapshot> {
        self.0.iter().find(|published| published.proxy == proxy).map(|published| published.endpoints.clone())
    }

    /// The `node.id` of a configured Envoy (`None` where any will do), by its name.
    pub fn node_of(&self, proxy: &str) -> Option<Option<&str>> {
        self.0.iter().find(|published| published.proxy == proxy).map(|published| published.node.as_deref())
    }

    pub(super) fn proxy_of(&self, node: &str) -> String {
        self.of(node).map_or_else(|| "-".into(), |published| published.proxy.clone())
    }
}

impl eds::Source for Endpoints {
    fn for_node(&self, node: &str) -> Option<Snapshot> {
        self.of(node).map(|published| published.endpoints.clone())
    }
}

pub(super) fn wire(health: EndpointHealth) -> Health {
    match health {
        EndpointHealth::Healthy => Health::Healthy,
        EndpointHealth::Degraded => Health::Degraded,
        EndpointHealth::Draining => Health::Draining,
        EndpointHealth::Unhealthy => Health::Unhealthy,
    }
}
