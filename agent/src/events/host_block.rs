//! Connect errors that MySQL and MariaDB servers count for the addresses of the proxy.

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

/// The cause of a block, and how to end it.
const CURE: &str = "clients or health checks close connections during the login: use no TCP or TLS checks for this \
     server, in HAProxy and elsewhere, and raise max_connect_errors. TRUNCATE TABLE \
     performance_schema.host_cache unblocks an address (before MySQL 8.4 and in MariaDB also FLUSH HOSTS)";

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

/// The current counts. Changes metrics only.
#[derive(Debug)]
pub struct ConnectErrorsSeen<'a> {
    pub instance: &'a InstanceId,
    pub seen: &'a ConnectErrors,
    pub guard: &'a HostBlockGuard,
    /// Addresses with a series until now.
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

/// Connect errors cannot be read per address, only in total.
///
/// Do: follow `advice`.
#[derive(Debug)]
pub struct ConnectErrorsHidden<'a> {
    pub instance: &'a InstanceId,
    pub why: Unseen,
}

impl Event for ConnectErrorsHidden<'_> {
    fn emit(&self, _: &Metrics) {
        let advice = match self.why {
            Unseen::PerformanceSchemaOff => {
                "performance_schema is off, so all failed connections count as the proxy's; \
                 turn it on to count them per address"
            }
            Unseen::NotGranted => {
                "GRANT SELECT ON performance_schema.host_cache TO the agent's user; \
                 until then all failed connections count as the proxy's"
            }
        };
        warn!(
            instance = %self.instance,
            advice,
            "connect errors of the proxy's address cannot be read"
        );
    }
}

/// Connect errors cannot be read at all.
///
/// Do: look at the error.
#[derive(Debug)]
pub struct ConnectErrorsUnknown<'a> {
    pub instance: &'a InstanceId,
    pub fault: &'a Fault,
    pub news: bool,
}

impl Event for ConnectErrorsUnknown<'_> {
    fn emit(&self, _: &Metrics) {
        if self.news {
            warn!(
                instance = %self.instance,
                error = %self.fault,
                "connect-error counts cannot be read; host-block protection is off"
            );
        }
    }
}

/// Half of `max_connect_errors` is reached.
///
/// Do: follow `cause`.
#[derive(Debug)]
pub struct HostBlockNear<'a> {
    pub instance: &'a InstanceId,
    /// `None` if connect errors cannot be read per address.
    pub address: Option<IpAddr>,
    pub errors: u64,
    pub limit: u64,
    /// Whether the agent can log in from there.
    pub way: Way,
    /// Whether to log it: not more than once in a while.
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

/// The result of a login that was made to reset connect errors.
///
/// Do: run the agent on the host of the proxy.
#[derive(Debug)]
pub struct HostBlockReset<'a> {
    pub instance: &'a InstanceId,
    pub address: IpAddr,
    /// Connect errors before the login.
    pub before: u64,
    pub after: u64,
    /// Whether to log it.
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

/// A login that was made to reset connect errors failed.
///
/// Do: look at the error.
#[derive(Debug)]
pub struct HostResetFailed<'a> {
    pub instance: &'a InstanceId,
    /// `None` for the address that the agent's logins come from by default.
    pub address: Option<IpAddr>,
    pub fault: &'a Fault,
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

/// The server blocks an address (error 1129).
///
/// Do: follow `cure`.
#[derive(Debug)]
pub struct HostBlocked<'a> {
    pub instance: &'a InstanceId,
    /// `None` for the address that the agent's logins come from by default.
    pub address: Option<IpAddr>,
    /// Connections refused so far, where known.
    pub refused: Option<u64>,
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
                "the server blocks the proxy's address: no client of the proxy can log in there"
            );
        }
    }
}

/// An address is not blocked any more.
#[derive(Debug)]
pub struct HostUnblocked<'a> {
    pub instance: &'a InstanceId,
    /// `None` for the address that the agent's logins come from by default.
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
