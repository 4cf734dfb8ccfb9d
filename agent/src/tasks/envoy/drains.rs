//! The agent's own drains on one Envoy: words in the endpoints that it is sent.
//!
//! Envoy has no admin state that a person and the agent would share, so there is nothing
//! to compare with: what stands here is what the endpoints say, and nobody else sets it.
//! A drain ends with the next endpoints that do not have it, those of a new agent included.

use std::{collections::BTreeSet, time::Duration};

use agent_core::{
    ServerId,
    plan::{AdminFlags, Outcome, Retired},
};
use tokio::sync::{mpsc, watch};

use crate::tasks::{
    Input, Shared,
    proxy::{Command, Order},
    sessions::answer,
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

/// Carries out what the planner commands, for ever. `connected` says whether an Envoy takes
/// endpoints now: what nobody hears is not begun.
pub async fn run(
    drained: Drained,
    connected: impl Fn() -> bool + Send,
    shared: Shared,
    mut commands: mpsc::Receiver<Order>,
) {
    while let Some(Order { command, decided }) = commands.recv().await {
        let outdated = decided.elapsed() > OUTDATED;
        carry_out(command, outdated, &drained, &connected, &shared).await;
    }
}

async fn carry_out(
    command: Command,
    outdated: bool,
    drained: &Drained,
    connected: &(impl Fn() -> bool + Send),
    shared: &Shared,
) {
    match command {
        Command::Drain(server) => {
            let sent = if outdated || !connected() { Err(false) } else { Ok(()) };
            if sent.is_ok() {
                drained.set(&server, true);
            }
            shared.tell(Input::Outcome(Outcome::Drain { server, sent })).await;
        }
        Command::Undrain(server) => {
            drained.set(&server, false);
            shared.tell(Input::Outcome(Outcome::Undrain { server, sent: true })).await;
        }
        // The endpoints say it as soon as it is decided.
        Command::Agent(..) => {}
        // The configuration refuses what would need it: Envoy closes no single session.
        Command::Close(retire) => answer(shared, &retire, Retired::Failed).await,
    }
}
