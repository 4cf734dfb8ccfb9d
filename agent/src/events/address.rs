//! Resolved addresses of instances, for proxies that do not resolve names.

use std::{io, net::SocketAddr};

use agent_core::InstanceId;
use tracing::{info, warn};

use super::Event;
use crate::metrics::Metrics;

/// The name of an instance now resolves to these addresses.
#[derive(Debug)]
pub struct AddressFound<'a> {
    pub instance: &'a InstanceId,
    pub addresses: &'a [SocketAddr],
}

impl Event for AddressFound<'_> {
    fn emit(&self, _: &Metrics) {
        let InstanceId { database, instance } = self.instance;
        let addresses = self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        info!(%database, %instance, addresses, "name resolved");
    }
}

/// The name of an instance cannot be resolved. Its last addresses stay in use.
#[derive(Debug)]
pub struct AddressLost<'a> {
    pub instance: &'a InstanceId,
    pub error: &'a io::Error,
}

impl Event for AddressLost<'_> {
    fn emit(&self, metrics: &Metrics) {
        let InstanceId { database, instance } = self.instance;
        metrics.address_failures.get_or_create(&self.instance.into()).inc();
        warn!(%database, %instance, error = %self.error, "name cannot be resolved; the last addresses stay in use");
    }
}
