//! What both proxies have in common.

use std::time::Duration;

use agent_core::{Time, health::Role};

use crate::{envoy::Envoy, haproxy::Haproxy, world::Names};

#[derive(Clone, Debug)]
pub enum Proxy {
    Haproxy(Haproxy),
    Envoy(Envoy),
}

/// Where a try goes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    Server(usize),
    /// A host that refuses.
    Room,
    /// The client is closed at once.
    Nobody,
}

/// What follows a try that failed before the connection was there.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Next {
    After(Duration),
    GiveUp,
}

impl Proxy {
    pub fn pick(&self, role: Role, draw: u64, last: Option<usize>, now: Time) -> Pick {
        match self {
            Self::Haproxy(haproxy) => haproxy.pick(role, draw, last),
            Self::Envoy(envoy) => envoy.pick(role, draw, now),
        }
    }

    pub fn after_failure(&self, role: Role, tries: u32, draw: u64, answered: bool) -> Next {
        match self {
            Self::Haproxy(haproxy) => haproxy.after_failure(role, tries, answered),
            Self::Envoy(_) => Envoy::after_failure(tries, draw),
        }
    }

    pub fn resolve(&mut self, names: &Names) {
        match self {
            Self::Haproxy(haproxy) => haproxy.resolve(names),
            Self::Envoy(envoy) => envoy.resolve(names),
        }
    }
}

/// The server with the highest draw. Without one of the others the choice stays the same.
pub fn best(servers: impl Iterator<Item = usize>, draw: u64) -> Option<usize> {
    servers.max_by_key(|server| mix(draw ^ (u64::try_from(*server).unwrap_or(0) + 1) << 56))
}

/// splitmix64's last steps.
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
