//! Which instance is behind the address that a proxy dials for a server.
//!
//! The agent and a proxy may resolve a name differently, and an operator or a stale name may lead a server
//! elsewhere. A login, which verifies the instance's name, proves an address. Not here: the verdict, which is
//! `judge`'s.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::Serialize;

use super::{
    ServerConfig,
    refusal::{ConnectHistory, Tries},
};
use crate::{Fault, InstanceId, Phase, Time};

/// One failed connection may be a restart; two, at least a second apart, are not chance.
const FAILURES: u32 = 2;

/// What is known of an address.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressState {
    /// The agent logs in there, or the proxy shows no address.
    #[default]
    Proved,
    /// It is the address of another instance, which is judged in its place.
    OtherInstance,
    /// The agent has not logged in there.
    Unproved,
    /// It accepts no connections, neither of the agent nor of the proxy.
    Dead,
}

/// An address that differs from the one that the agent dials for the same instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressView {
    pub dialled: SocketAddr,
    /// The instance behind it, as far as is known.
    pub instance: InstanceId,
    pub state: AddressState,
    /// Why the last login there failed.
    pub fault: Option<Fault>,
}

/// A login at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressLogin {
    pub instance: InstanceId,
    pub address: SocketAddr,
    pub at: Time,
    /// Whether the agent dials this address of its own accord, not because a proxy does.
    pub own: bool,
    pub result: Result<(), Fault>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    /// Where the last login to each instance went.
    own: BTreeMap<InstanceId, SocketAddr>,
    /// Logins where proxies dial elsewhere.
    proofs: BTreeMap<(InstanceId, SocketAddr), Attempts>,
}

#[derive(Clone, Debug, Default)]
struct Attempts {
    proved: Option<Time>,
    /// Connections that failed in a row, and since when.
    unconnected: u32,
    since: Option<Time>,
    /// Whether clients failed there too.
    dead: bool,
    fault: Option<Fault>,
}

impl Addresses {
    pub(super) fn observe(&mut self, login: AddressLogin) {
        if login.own {
            if login.result.is_ok() {
                self.own.insert(login.instance, login.address);
            }
            return;
        }
        let attempts = self.proofs.entry((login.instance, login.address)).or_default();
        match login.result {
            Ok(()) => *attempts = Attempts { proved: Some(login.at), ..Attempts::default() },
            Err(fault) => {
                if fault.phase <= Phase::Tcp {
                    attempts.unconnected += 1;
                    attempts.since.get_or_insert(login.at);
                } else {
                    (attempts.unconnected, attempts.since, attempts.dead) = (0, None, false);
                    // Another server answers there now.
                    attempts.proved = None;
                }
                attempts.fault = Some(fault);
            }
        }
    }

    /// What is known of the address that a proxy dials for a server; `None` where it is the agent's own. A
    /// proof counts for `lasts`.
    pub(super) fn look(
        &mut self,
        server: &ServerConfig,
        dialled: SocketAddr,
        history: Option<&ConnectHistory>,
        now: Time,
        lasts: Duration,
    ) -> Option<AddressView> {
        let own = self.own.get(&server.instance)?;
        if *own == dialled {
            return None;
        }
        let others = self
            .own
            .iter()
            .filter(|(id, address)| id.database == server.instance.database && **address == dialled);
        let others: Vec<&InstanceId> = others.map(|(id, _)| id).collect();
        if let [other] = others.as_slice() {
            let instance = (*other).clone();
            return Some(AddressView { dialled, instance, state: AddressState::OtherInstance, fault: None });
        }
        let attempts = self.proofs.entry((server.instance.clone(), dialled)).or_default();
        if attempts.unconnected >= FAILURES
            && let Some(since) = attempts.since
            && let Some(tries) = history.and_then(|history| history.tries(since))
        {
            attempts.dead = tries == Tries::Failed;
        }
        let state = match attempts.proved {
            Some(at) if now.since(at) <= lasts => AddressState::Proved,
            _ if attempts.dead => AddressState::Dead,
            _ => AddressState::Unproved,
        };
        let (instance, fault) = (server.instance.clone(), attempts.fault.clone());
        Some(AddressView { dialled, instance, state, fault })
    }

    /// Drops what is known of other addresses than these.
    pub(super) fn keep(&mut self, addresses: &[(InstanceId, SocketAddr)]) {
        self.proofs.retain(|key, _| addresses.contains(key));
    }
}
