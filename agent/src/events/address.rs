//! Resolved addresses of instances, for proxies that do not resolve names.

use std::{io, net::SocketAddr};

use agent_core::{
    InstanceId, ServerId,
    health::{AddressState, AddressView},
};
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
///
/// Do: check the name and the resolver of this host. The last addresses stay in use.
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

/// A proxy dials another address for a server than the agent does for the instance.
///
/// Do: compare the address with haproxy.cfg and DNS, and let HAProxy resolve the name again.
#[derive(Debug)]
pub struct AddressDiffers<'a> {
    pub server: &'a ServerId,
    pub view: &'a AddressView,
    /// `false` for a retry that failed in the same way.
    pub news: bool,
}

impl Event for AddressDiffers<'_> {
    fn emit(&self, metrics: &Metrics) {
        let Self { server, view, news } = self;
        let proved = view.state == AddressState::Proved;
        metrics.address_proved.get_or_create(&(*server).into()).set(proved.into());
        let error = view.fault.as_ref().map(ToString::to_string);
        let (dialled, instance) = (view.dialled, &view.instance);
        match view.state {
            _ if !news => {}
            AddressState::Proved => {
                info!(%server, %dialled, %instance, "HAProxy dials another address than the agent; it is the same instance");
            }
            AddressState::OtherInstance => {
                warn!(%server, %dialled, %instance, "HAProxy dials the address of another instance, which is judged in its place");
            }
            // The first login there is under way.
            AddressState::Unproved if error.is_none() => {}
            AddressState::Unproved | AddressState::Dead => {
                warn!(%server, %dialled, %instance, error, "HAProxy dials an address that is not proved to be the instance's; the server is not reported up");
            }
        }
    }
}
