//! Where instances are, for proxies that take no names.

use std::{io, net::SocketAddr};

use agent_core::InstanceId;
use tracing::{info, warn};

use super::Event;
use crate::metrics::Metrics;

/// The name of an instance has these addresses from now on.
#[derive(Debug)]
pub struct AddressFound<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// Its addresses.
    pub addresses: &'a [SocketAddr],
}

impl Event for AddressFound<'_> {
    fn emit(&self, _: &Metrics) {
        let InstanceId { database, instance } = self.instance;
        let addresses = self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        info!(%database, %instance, addresses, "address found");
    }
}

/// The name of an instance cannot be resolved: the addresses it had stay in force.
#[derive(Debug)]
pub struct AddressLost<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// The resolver's words.
    pub error: &'a io::Error,
}

impl Event for AddressLost<'_> {
    fn emit(&self, metrics: &Metrics) {
        let InstanceId { database, instance } = self.instance;
        metrics.address_failures.get_or_create(&self.instance.into()).inc();
        warn!(%database, %instance, error = %self.error, "name not resolved: the addresses it had stay in force");
    }
}
