//! The admin states of a HAProxy's servers, with what HAProxy itself does not
//! know: whose they are. Each violation of the rules is recorded.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeMap;

use agent_core::{
    ServerId,
    plan::{AdminFlags, AdminWord, DrainSent},
};

/// What a person does to a server.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Hand {
    Drain,
    Maint,
    Ready,
}

/// A proxy's admin state with what the proxy does not know: whose it is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    pub flags: AdminFlags,
    /// The drain that shows was set, or taken over, by an operator.
    pub persons: bool,
    /// The agent has a drain there, until it has seen it gone.
    pub agents: bool,
}

/// All servers, and what was done that must not be.
pub struct Admin {
    pub truth: BTreeMap<ServerId, Truth>,
    /// Only agent-check answers can change anything.
    pub read_only: bool,
    pub broken: Vec<String>,
}

impl Admin {
    pub fn new(servers: impl Iterator<Item = ServerId>) -> Self {
        let truth = servers.map(|server| (server, Truth::default())).collect();
        Self { truth, read_only: false, broken: Vec::new() }
    }

    /// The agent has seen the end of its drain: what is there now is an operator's.
    pub fn forget(&mut self, server: &ServerId) {
        let truth = self.truth.get_mut(server).expect("a server");
        truth.persons |= !truth.flags.clear();
        truth.agents = false;
    }

    /// An operator's own command.
    pub fn person(&mut self, server: &ServerId, hand: Hand) {
        let truth = self.truth.get_mut(server).expect("a server");
        match hand {
            Hand::Drain => {
                truth.flags = AdminFlags { drain: true, ..AdminFlags::default() };
                // On top of the agent's own the proxy cannot tell: such a drain may be lost.
                truth.persons = !truth.agents;
            }
            Hand::Maint => {
                truth.flags = AdminFlags { maint: true, ..AdminFlags::default() };
                truth.persons = !truth.agents;
            }
            Hand::Ready => {
                truth.flags = AdminFlags::default();
                truth.persons = false;
            }
        }
    }

    /// The guarded drain of the executor.
    pub fn drain(&mut self, server: &ServerId) -> DrainSent {
        let truth = self.truth.get_mut(server).expect("a server");
        if !truth.flags.clear() {
            return DrainSent::NotSent;
        }
        truth.agents = true;
        if self.read_only {
            return DrainSent::Unclear;
        }
        truth.flags.drain = true;
        DrainSent::Sent
    }

    /// The guarded end of a drain.
    pub fn undrain(&mut self, server: &ServerId) -> bool {
        if self.read_only && self.truth[server].flags.drain {
            return false;
        }
        let truth = self.truth.get_mut(server).expect("a server");
        if truth.flags.drain && !truth.flags.maint {
            if truth.persons {
                self.broken.push(format!("an operator's drain of {server} was taken back"));
            }
            truth.flags.drain = false;
        }
        true
    }

    /// An agent check reads the answer.
    pub fn answer(&mut self, server: &ServerId, word: Option<AdminWord>) {
        let truth = self.truth.get_mut(server).expect("a server");
        match word {
            None => {}
            Some(word) if truth.persons => {
                self.broken.push(format!("{word:?} was answered over an operator's state of {server}"));
            }
            Some(AdminWord::Drain) => truth.flags.drain = true,
            Some(AdminWord::Ready) => truth.flags = AdminFlags::default(),
        }
    }
}
