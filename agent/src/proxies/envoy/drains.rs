//! Drains on one Envoy: an operator's, through the agent, as a health status in its endpoints.
//!
//! Envoy has no admin state that operators and the agent share, so there is nothing to compare with:
//! the record here is what the endpoints contain. A drain ends with the next endpoints without it,
//! those of a new agent included.

use std::{collections::BTreeSet, time::Duration};

use agent_core::{
    ProxyIndex, ServerId,
    plan::{DrainSent, Outcome},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{messages::Input, shared::Shared};

/// An order that has waited longer than this is dropped: the situation has changed, and what is
/// still wanted is ordered again.
const OUTDATED: Duration = Duration::from_secs(2);

/// What the decider orders one Envoy to do, and when that was decided.
#[derive(Debug)]
pub struct Order {
    server: ServerId,
    drain: bool,
    decided: Instant,
}

impl Order {
    pub fn drain(server: &ServerId) -> Self {
        Self { server: server.clone(), drain: true, decided: Instant::now() }
    }

    pub fn undrain(server: &ServerId) -> Self {
        Self { drain: false, ..Self::drain(server) }
    }
}

/// The drained servers of one Envoy. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Drained(watch::Sender<BTreeSet<ServerId>>);

impl Default for Drained {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeSet::new()))
    }
}

impl Drained {
    /// To be woken when it changes.
    pub fn watch(&self) -> watch::Receiver<BTreeSet<ServerId>> {
        self.0.subscribe()
    }

    /// For the planner: which of these servers are drained.
    pub fn shown(&self, servers: &[ServerId]) -> Vec<(ServerId, bool)> {
        let drained = self.0.borrow();
        servers.iter().map(|server| (server.clone(), drained.contains(server))).collect()
    }

    fn set(&self, server: &ServerId, drain: bool) {
        self.0.send_if_modified(
            |drained| {
                if drain { drained.insert(server.clone()) } else { drained.remove(server) }
            },
        );
    }
}

/// One configured Envoy, or all that share its configuration.
pub struct Config<C> {
    /// Its index in the configuration.
    pub proxy: ProxyIndex,
    pub servers: Vec<ServerId>,
    pub drained: Drained,
    /// Whether it takes endpoints now: a drain that no Envoy receives is not begun.
    pub connected: C,
}

/// Carries out orders, for ever.
pub async fn run<C: Fn() -> bool + Send + Sync>(
    config: Config<C>,
    shared: Shared,
    mut orders: mpsc::Receiver<Order>,
) {
    while let Some(Order { server, drain, decided }) = orders.recv().await {
        let outcome = if drain {
            let send = decided.elapsed() <= OUTDATED && (config.connected)();
            if send {
                config.drained.set(&server, true);
            }
            Outcome::Drain { server, sent: if send { DrainSent::Sent } else { DrainSent::NotSent } }
        } else {
            config.drained.set(&server, false);
            Outcome::Undrain { server, taken: true }
        };
        shared.send(Input::Outcome(outcome)).await;
        // At once, rather than with the next round of the sessions.
        let (at, shown) = (shared.clock.now(), config.drained.shown(&config.servers));
        shared.send(Input::Endpoints { proxy: config.proxy, at, shown }).await;
    }
}
