//! Servers of the MySQL family that count failed connections against the proxy's address.

use std::{collections::BTreeSet, net::IpAddr};

use agent_core::{
    Fault, InstanceId,
    health::{
        ConnectErrors, Counted, HostBlockGuard,
        host_block::{Nearness, Unseen, Way},
    },
};
use tracing::{error, info, warn};

use super::Event;
use crate::metrics::{
    Metrics,
    labels::{OfAddress, OfInstance, OfReset, ResetResult},
};

/// What ends a block, and what caused it.
const CURE: &str = "clients or health checks end their connections half-way through the login: let HAProxy and \
     others make no TCP or TLS check of this server, and raise max_connect_errors. TRUNCATE TABLE \
     performance_schema.host_cache lets a blocked address in again (before MySQL 8.4 and in MariaDB also \
     FLUSH HOSTS)";

fn of_address(id: &InstanceId, address: IpAddr) -> OfAddress {
    let OfInstance { database, instance } = id.into();
    OfAddress { database, instance, address: address.to_string() }
}

fn of_reset(id: &InstanceId, result: ResetResult) -> OfReset {
    let OfInstance { database, instance } = id.into();
    OfReset { database, instance, result }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The counts as they are now. Nothing to log.
#[derive(Debug)]
pub struct ConnectErrorsSeen<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// What the server says.
    pub seen: &'a ConnectErrors,
    /// What is watched.
    pub guard: &'a HostBlockGuard,
    /// Addresses that were watched before.
    pub before: &'a BTreeSet<IpAddr>,
}

impl Event for ConnectErrorsSeen<'_> {
    fn emit(&self, metrics: &Metrics) {
        for address in self.before {
            metrics.host_connect_errors.remove(&of_address(self.instance, *address));
        }
        let mut blocked = false;
        for (address, errors, nearness) in self.guard.addresses() {
            let labels = of_address(self.instance, address);
            metrics.host_connect_errors.get_or_create(&labels).set(whole(errors));
            blocked |= nearness == Nearness::Blocked;
        }
        let labels = self.instance.into();
        metrics.host_connect_errors_limit.get_or_create(&labels).set(whole(self.seen.limit));
        metrics.host_blocked.get_or_create(&labels).set(blocked.into());
        if let Counted::Together { aborted, .. } = self.seen.counted {
            metrics.host_connects_aborted.get_or_create(&labels).set(whole(aborted));
        }
    }
}

/// The counts of addresses cannot be seen, only all failures together.
#[derive(Debug)]
pub struct ConnectErrorsHidden<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// Why.
    pub why: Unseen,
}

impl Event for ConnectErrorsHidden<'_> {
    fn emit(&self, _: &Metrics) {
        let advice = match self.why {
            Unseen::PerformanceSchemaOff => {
                "performance_schema is off, so all failed connections are taken for the proxy's: \
                 turn it on, and the address can be told"
            }
            Unseen::NotGranted => {
                "GRANT SELECT ON performance_schema.host_cache TO the agent's user; \
                 until then all failed connections are taken for the proxy's"
            }
        };
        warn!(
            instance = %self.instance,
            advice,
            "how near the proxy's address is to being blocked cannot be seen"
        );
    }
}

/// The server does not say what it counts.
#[derive(Debug)]
pub struct ConnectErrorsUnknown<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// What it says instead.
    pub fault: &'a Fault,
    /// Whether it is news.
    pub news: bool,
}

impl Event for ConnectErrorsUnknown<'_> {
    fn emit(&self, _: &Metrics) {
        if self.news {
            warn!(
                instance = %self.instance,
                error = %self.fault,
                "the server does not say what it counts of failed connections: nobody guards the proxy's address"
            );
        }
    }
}

/// Half of the failures that block an address have been counted.
#[derive(Debug)]
pub struct HostBlockNear<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// The address, where it can be told.
    pub address: Option<IpAddr>,
    /// What is counted.
    pub errors: u64,
    /// What blocks it.
    pub limit: u64,
    /// Whether the agent can log in from there.
    pub way: Way,
    /// Whether it has not been told for a while.
    pub news: bool,
}

impl Event for HostBlockNear<'_> {
    fn emit(&self, _: &Metrics) {
        if !self.news {
            return;
        }
        let what_now = match self.way {
            Way::Own | Way::ThisHost => "the agent logs in from there now, which resets the count",
            Way::None => {
                "the agent cannot log in from that address, so nothing resets the count: run it beside the proxy"
            }
        };
        warn!(
            instance = %self.instance,
            address = self.address.map(tracing::field::display),
            errors = self.errors,
            limit = self.limit,
            what_now,
            cause = CURE,
            "the server is half-way to blocking the proxy's address"
        );
    }
}

/// A login of the agent's was to take back a count, and has or has not.
#[derive(Debug)]
pub struct HostBlockReset<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// The address.
    pub address: IpAddr,
    /// What was counted before the login.
    pub before: u64,
    /// And after it.
    pub after: u64,
    /// Whether it is to be told.
    pub news: bool,
}

impl Event for HostBlockReset<'_> {
    fn emit(&self, metrics: &Metrics) {
        let reset = self.after < self.before;
        let labels = of_reset(self.instance, if reset { ResetResult::Reset } else { ResetResult::Unchanged });
        metrics.host_resets.get_or_create(&labels).inc();
        let (instance, address) = (self.instance, self.address);
        if reset && self.news {
            let (before, after) = (self.before, self.after);
            info!(%instance, %address, before, after, "the agent's login has reset the count of failed connections");
        } else if self.news {
            warn!(
                %instance,
                %address,
                errors = self.after,
                cause = CURE,
                "the agent's logins do not reset the count of failed connections: do they come from this address?"
            );
        }
    }
}

/// The login that was to take back a count failed.
#[derive(Debug)]
pub struct HostResetFailed<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// The address, where the login was to come from another one than the agent's own.
    pub address: Option<IpAddr>,
    /// What went wrong.
    pub fault: &'a Fault,
    /// Whether it is news.
    pub news: bool,
}

impl Event for HostResetFailed<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.host_resets.get_or_create(&of_reset(self.instance, ResetResult::Failed)).inc();
        if self.news {
            warn!(
                instance = %self.instance,
                address = self.address.map(tracing::field::display),
                error = %self.fault,
                "the count of failed connections could not be reset by a login"
            );
        }
    }
}

/// An address is blocked.
#[derive(Debug)]
pub struct HostBlocked<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// The address; `None` is wherever the agent's own logins come from.
    pub address: Option<IpAddr>,
    /// Connections refused so far, where that can be seen.
    pub refused: Option<u64>,
    /// Whether it is news.
    pub news: bool,
}

impl Event for HostBlocked<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.host_blocked.get_or_create(&self.instance.into()).set(1);
        if self.news {
            error!(
                instance = %self.instance,
                address = self.address.map(tracing::field::display),
                refused = self.refused,
                reason = 1129,
                cure = CURE,
                "the server blocks the proxy's address: nobody behind the proxy can log in there"
            );
        }
    }
}

/// An address is not blocked any more.
#[derive(Debug)]
pub struct HostUnblocked<'a> {
    /// The instance.
    pub instance: &'a InstanceId,
    /// The address; `None` is wherever the agent's own logins come from.
    pub address: Option<IpAddr>,
}

impl Event for HostUnblocked<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.host_blocked.get_or_create(&self.instance.into()).set(0);
        info!(
            instance = %self.instance,
            address = self.address.map(tracing::field::display),
            "the server does not block the proxy's address any more"
        );
    }
}
