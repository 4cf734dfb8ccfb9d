//! The runtime socket of HAProxy.

use tracing::{error, info, warn};

use super::Event;
use crate::{
    metrics::{Metrics, labels::Word},
    seen::Difference,
    state::downs::DownRecord,
};

/// The socket does not answer. No session is closed and no server drained until it does.
///
/// Do: check that HAProxy runs and that the agent may use its socket.
#[derive(Debug)]
pub struct ProxyLost<'a> {
    pub proxy: &'a str,
    pub error: String,
    /// `false` for a retry that failed in the same way: it is not logged.
    pub news: bool,
}

impl Event for ProxyLost<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.proxy_up.get_or_create(&self.proxy.into()).set(0);
        if self.news {
            warn!(
                proxy = self.proxy,
                error = self.error,
                "runtime socket lost: health goes on, sessions and drains are held"
            );
        }
    }
}

/// The socket answers but does not list sessions. Their ages are unknown, so none is closed.
///
/// Do: look at the error: the `stats socket` line needs `level admin`.
#[derive(Debug)]
pub struct SessionsNotListed<'a> {
    pub proxy: &'a str,
    pub error: String,
}

impl Event for SessionsNotListed<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            proxy = self.proxy,
            error = self.error,
            "sessions of the proxy not listed: health and drains go on, sessions are held"
        );
    }
}

/// The master socket does not list old workers, so sessions in them are not joined.
///
/// Do: check `master` in the configuration and the permissions of that socket.
#[derive(Debug)]
pub struct OldWorkersNotListed<'a> {
    pub proxy: &'a str,
    pub error: String,
}

impl Event for OldWorkersNotListed<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            proxy = self.proxy,
            error = self.error,
            "old workers of the proxy not listed: their sessions are held, everything else goes on"
        );
    }
}

/// The runtime socket answers.
#[derive(Debug)]
pub struct ProxyBack<'a> {
    pub proxy: &'a str,
    pub version: &'a str,
    pub pid: u32,
}

impl Event for ProxyBack<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.proxy_up.get_or_create(&self.proxy.into()).set(1);
        info!(proxy = self.proxy, version = self.version, pid = self.pid, "runtime socket answers");
    }
}

/// A server that left the configuration stays DOWN: in a writer backend, it would receive writes.
///
/// Do: run `command` if the server may receive writes.
#[derive(Debug)]
pub struct StaysDown<'a> {
    pub record: &'a DownRecord,
}

impl Event for StaysDown<'_> {
    fn emit(&self, _: &Metrics) {
        let DownRecord { backend, server, .. } = self.record;
        warn!(
            backend,
            server,
            command = self.record.command(),
            "server left the configuration and stays DOWN in HAProxy for its role; the command lifts it"
        );
    }
}

/// Another agent commands the same HAProxy.
///
/// Do: stop one of the two agents.
#[derive(Debug)]
pub struct RivalFound<'a> {
    pub proxy: &'a str,
    /// The other agent, in its own words.
    pub other: &'a str,
}

impl Event for RivalFound<'_> {
    fn emit(&self, _: &Metrics) {
        error!(
            proxy = self.proxy,
            other = self.other,
            "another agent commands the same HAProxy: they end one another's drains; stop one of them"
        );
    }
}

/// A HAProxy was compared with the configuration.
///
/// Do: correct haproxy.cfg or the configuration of the agent, as `difference` says.
#[derive(Debug)]
pub struct ProxyCompared<'a> {
    pub proxy: &'a str,
    pub before: &'a [Difference],
    pub now: &'a [Difference],
}

impl Event for ProxyCompared<'_> {
    fn emit(&self, metrics: &Metrics) {
        let count = i64::try_from(self.now.len()).unwrap_or(i64::MAX);
        metrics.proxy_differences.get_or_create(&self.proxy.into()).set(count);
        for difference in self.now.iter().filter(|difference| !self.before.contains(difference)) {
            warn!(
                proxy = self.proxy,
                kind = %Word::of(&difference.kind),
                name = difference.name,
                nearest = difference.nearest,
                difference = %difference,
                "HAProxy differs from the configuration"
            );
        }
        for difference in self.before.iter().filter(|difference| !self.now.contains(difference)) {
            info!(
                proxy = self.proxy,
                kind = %Word::of(&difference.kind),
                name = difference.name,
                "HAProxy no longer differs from the configuration"
            );
        }
    }
}
