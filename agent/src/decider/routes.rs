//! The tasks that carry out commands.

use std::{collections::HashMap, fmt};

use agent_core::{InstanceId, ProxyIndex, ServerId};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    messages::CloseOrder,
    proxies::{envoy::drains, haproxy::orders},
};

#[derive(Debug, Default)]
pub struct Routes {
    /// The session task of each instance.
    pub instances: HashMap<InstanceId, mpsc::Sender<CloseOrder>>,
    /// The task of each proxy, by its index in the configuration.
    pub proxies: HashMap<ProxyIndex, ProxyRoute>,
}

/// The task of one proxy.
#[derive(Debug)]
pub struct ProxyRoute {
    /// What records of its drains call it.
    pub name: String,
    pub orders: Orders,
}

/// Orders for the kind of proxy that it is.
pub enum Orders {
    Haproxy(mpsc::Sender<orders::Order>),
    Envoy {
        orders: mpsc::Sender<drains::Order>,
        /// Whether it takes endpoints now: a drain is sent with them.
        connected: Box<dyn Fn() -> bool + Send + Sync>,
    },
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Haproxy(_) => "Haproxy",
            Self::Envoy { .. } => "Envoy",
        })
    }
}

/// Sending never waits: a task that does not take orders gets none. Each says whether it was sent.
impl Routes {
    fn proxy(&self, server: &ServerId) -> Option<&ProxyRoute> {
        self.proxies.get(&server.proxy)
    }

    pub(super) fn name(&self, server: &ServerId) -> Option<&str> {
        self.proxy(server).map(|route| route.name.as_str())
    }

    /// The runtime socket of a server's proxy, if that is a HAProxy.
    pub(super) fn haproxy_name(&self, server: &ServerId) -> Option<&str> {
        let route = self.proxy(server)?;
        matches!(route.orders, Orders::Haproxy(_)).then_some(route.name.as_str())
    }

    /// Whether a drain of this server would reach its proxy: an Envoy has to be connected.
    pub(super) fn reaches(&self, server: &ServerId) -> bool {
        match self.proxy(server).map(|route| &route.orders) {
            Some(Orders::Envoy { connected, .. }) => connected(),
            Some(Orders::Haproxy(_)) | None => true,
        }
    }

    pub(super) fn drain(&self, server: &ServerId, force: bool) -> bool {
        match self.proxy(server).map(|route| &route.orders) {
            Some(Orders::Haproxy(_)) => {
                self.haproxy(server, orders::Command::Drain { server: server.clone(), force })
            }
            Some(Orders::Envoy { orders, .. }) => orders.try_send(drains::Order::drain(server)).is_ok(),
            None => false,
        }
    }

    pub(super) fn undrain(&self, server: &ServerId) -> bool {
        match self.proxy(server).map(|route| &route.orders) {
            Some(Orders::Haproxy(_)) => self.haproxy(server, orders::Command::Undrain(server.clone())),
            Some(Orders::Envoy { orders, .. }) => orders.try_send(drains::Order::undrain(server)).is_ok(),
            None => false,
        }
    }

    /// An order that only HAProxy takes.
    pub(super) fn haproxy(&self, server: &ServerId, command: orders::Command) -> bool {
        let Some(Orders::Haproxy(sender)) = self.proxy(server).map(|route| &route.orders) else {
            return false;
        };
        sender.try_send(orders::Order { command, decided: Instant::now() }).is_ok()
    }
}
