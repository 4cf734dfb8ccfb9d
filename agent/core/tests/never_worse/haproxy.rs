//! HAProxy with the configuration of `deploy/haproxy`, as far as a new client meets it.
//!
//! - A backend without a usable server closes a client at once.
//! - A refused connection is tried again: by `roundrobin` with two active servers at once on the next one,
//!   otherwise after a second. A connection that is not answered ends after `timeout connect`.
//! - A server that accepts and then closes is never tried again.
//! - `backup` servers are used while no other is usable.
//!
//! Not here: balancing by load. Which of the usable servers a try reaches is drawn by the number of the try,
//! so that it is the same in all arms as far as their usable servers are the same.

use std::{collections::BTreeSet, time::Duration};

use agent_core::{
    desired::AgentHealth,
    health::{Connects, Role},
    plan::AdminFlags,
};

use crate::{
    proxy::{Next, Pick, best},
    world::{Hand, Names},
};

#[derive(Clone, Debug)]
pub struct Haproxy {
    /// The writer's backend and the readers'.
    pub backends: [Vec<Entry>; 2],
    /// `retries 10`, `option redispatch 1` and a `backup` that refuses, or HAProxy's default.
    pub room: bool,
    /// One server in each backend, the cluster's name by DNS: no agent.
    pub by_names: Option<Resolved>,
    /// What a reload starts from.
    state_file: [Vec<Entry>; 2],
}

/// A server of a backend.
#[derive(Clone, Debug)]
pub struct Entry {
    pub up: bool,
    pub flags: AdminFlags,
    /// The drain is the agent's own: not in the state file.
    pub own_drain: bool,
    pub connects: Connects,
}

/// The addresses that the server by DNS has now.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub writer: usize,
    pub reader: usize,
}

/// The backend of a role.
pub fn backend(role: Role) -> usize {
    usize::from(role == Role::Reader)
}

impl Haproxy {
    pub fn new(servers: usize, room: bool) -> Self {
        let entry =
            Entry { up: true, flags: AdminFlags::default(), own_drain: false, connects: Connects::default() };
        let backends = [vec![entry.clone(); servers], vec![entry; servers]];
        Self { state_file: backends.clone(), backends, room, by_names: None }
    }

    pub fn by_names(resolved: Resolved) -> Self {
        Self { by_names: Some(resolved), ..Self::new(0, false) }
    }

    fn usable(&self, role: Role) -> impl Iterator<Item = usize> {
        let entries = self.backends[backend(role)].iter().enumerate();
        entries.filter(|(_, entry)| entry.takes_sessions()).map(|(index, _)| index)
    }

    pub fn pick(&self, role: Role, draw: u64, last: Option<usize>) -> Pick {
        if let Some(resolved) = &self.by_names {
            return Pick::Server(if role == Role::Writer { resolved.writer } else { resolved.reader });
        }
        let usable: Vec<usize> = self.usable(role).collect();
        // Round robin does not come back to the same server while there is another.
        let fresh = usable.iter().copied().filter(|index| role == Role::Reader || Some(*index) != last);
        match best(fresh, draw).or_else(|| best(usable.iter().copied(), draw)) {
            Some(server) => Pick::Server(server),
            None if self.room => Pick::Room,
            None => Pick::Nobody,
        }
    }

    /// After try number `tries` failed, refused or without an answer.
    pub fn after_failure(&self, role: Role, tries: u32, answered: bool) -> Next {
        let retries = if self.room { 10 } else { 3 };
        if tries > retries {
            return Next::GiveUp;
        }
        // `leastconn` always waits; without redispatch the next try goes to the same server.
        let at_once = self.room && role == Role::Writer && self.usable(role).count() > 1;
        Next::After(if at_once || !answered { Duration::ZERO } else { Duration::from_secs(1) })
    }

    /// Whether a try that failed is made again at the same server, whatever becomes of its state meanwhile.
    pub fn sticks(&self) -> bool {
        !self.room
    }

    /// An answer to an agent check, or a command of the same meaning.
    pub fn hears(&mut self, role: Role, server: usize, health: Option<AgentHealth>) {
        if let Some(health) = health {
            self.backends[backend(role)][server].up = health == AgentHealth::Up;
        }
    }

    pub fn operator(&mut self, server: usize, hand: Hand) {
        for entry in self.backends.iter_mut().filter_map(|backend| backend.get_mut(server)) {
            let weightless = entry.flags.weightless;
            match hand {
                Hand::Maint => entry.flags = AdminFlags { maint: true, weightless, ..AdminFlags::default() },
                Hand::Drain => entry.flags = AdminFlags { drain: true, weightless, ..AdminFlags::default() },
                Hand::Ready => entry.flags = AdminFlags { weightless, ..AdminFlags::default() },
                Hand::Weight0 => entry.flags.weightless = true,
                Hand::Weight1 => entry.flags.weightless = false,
            }
            entry.own_drain &= entry.flags.drain && hand != Hand::Drain;
        }
    }

    /// The state file is written: by the agent alone.
    pub fn dump(&mut self) {
        self.state_file.clone_from(&self.backends);
        for entry in self.state_file.iter_mut().flatten() {
            entry.flags.drain &= !entry.own_drain;
            entry.own_drain = false;
        }
    }

    /// A reload or a start.
    pub fn load(&mut self) {
        self.backends.clone_from(&self.state_file);
        for entry in self.backends.iter_mut().flatten() {
            entry.connects = Connects::default();
        }
    }

    /// The resolver's last answer. An address that is still in it stays.
    pub fn resolve(&mut self, names: &Names) {
        let Some(resolved) = &mut self.by_names else { return };
        resolved.writer = names.cluster;
        if !names.readers.contains(&resolved.reader) {
            resolved.reader = names.readers.first().copied().unwrap_or(names.cluster);
        }
    }

    /// The servers that it sends sessions to, of one backend.
    pub fn up(&self, role: Role) -> BTreeSet<usize> {
        self.usable(role).collect()
    }
}

impl Entry {
    fn takes_sessions(&self) -> bool {
        self.up && self.flags.clear()
    }
}
