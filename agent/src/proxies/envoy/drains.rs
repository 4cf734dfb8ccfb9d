//! The agent's own drains on one Envoy: words in the endpoints that it is sent.
//!
//! Envoy has no admin state that a person and the agent would share, so there is nothing
//! to compare with: what stands here is what the endpoints say, and nobody else sets it.
//! A drain ends with the next endpoints that do not have it, those of a new agent included.

use std::{collections::BTreeSet, time::Duration};

use agent_core::{
    ServerId,
    plan::{AdminFlags, DrainSent, Outcome, Retired},
};
use tokio::sync::{mpsc, watch};

use crate::{
    instances::sessions::answer,
    messages::{Input, ProxyCommand, ProxyOrder},
    shared::Shared,
};

/// A command that has waited longer than this is dropped: things have moved on, and what is
/// still wanted is asked for again.
const OUTDATED: Duration = Duration::from_secs(2);

/// The servers of one Envoy that the agent has drained. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Drained(watch::Sender<BTreeSet<ServerId>>);

impl Default for Drained {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeSet::new()))
    }
}

impl Drained {
    /// Whether this one is.
    pub fn contains(&self, server: &ServerId) -> bool {
        self.0.borrow().contains(server)
    }

    /// To be woken when it changes.
    pub fn watch(&self) -> watch::Receiver<BTreeSet<ServerId>> {
        self.0.subscribe()
    }

    /// What the planner is told of these servers, as HAProxy's own table would.
    pub fn flags(&self, servers: &[ServerId]) -> Vec<(ServerId, AdminFlags)> {
        let drained = self.0.borrow();
        let flags =
            |server: &ServerId| AdminFlags { drain: drained.contains(server), ..AdminFlags::default() };
        servers.iter().map(|server| (server.clone(), flags(server))).collect()
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
    pub proxy: usize,
    /// Its servers.
    pub servers: Vec<ServerId>,
    /// The drains.
    pub drained: Drained,
    /// Whether it takes endpoints now: what nobody hears is not begun.
    pub connected: C,
}

/// Carries out what the planner commands, for ever.
pub async fn run<C: Fn() -> bool + Send + Sync>(
    config: Config<C>,
    shared: Shared,
    mut commands: mpsc::Receiver<ProxyOrder>,
) {
    while let Some(ProxyOrder { command, decided }) = commands.recv().await {
        let outdated = decided.elapsed() > OUTDATED;
        config.carry_out(command, outdated, &shared).await;
    }
}

impl<C: Fn() -> bool + Send + Sync> Config<C> {
    async fn carry_out(&self, command: ProxyCommand, outdated: bool, shared: &Shared) {
        match command {
            ProxyCommand::Drain(server) => {
                let sent = if outdated || !(self.connected)() {
                    DrainSent::NotSent
                } else {
                    self.drained.set(&server, true);
                    DrainSent::Sent
                };
                shared.tell(Input::Outcome(Outcome::Drain { server, sent })).await;
                self.tell_flags(shared).await;
            }
            ProxyCommand::Undrain(server) => {
                self.drained.set(&server, false);
                shared.tell(Input::Outcome(Outcome::Undrain { server, taken: true })).await;
                self.tell_flags(shared).await;
            }
            // The endpoints say it as soon as it is decided.
            ProxyCommand::Agent(..) => {}
            // The configuration refuses what would need it: Envoy closes no single session.
            ProxyCommand::Close(retire) => answer(shared, &retire, Retired::Failed).await,
        }
    }

    /// At once, rather than with the next round of the sessions.
    async fn tell_flags(&self, shared: &Shared) {
        let (at, flags) = (shared.clock.now(), self.drained.flags(&self.servers));
        shared.tell(Input::Admin { proxy: self.proxy, at, flags }).await;
    }
}
