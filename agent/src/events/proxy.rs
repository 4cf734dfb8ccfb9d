//! The runtime socket of HAProxy.

use tracing::{error, info, warn};

use super::Event;
use crate::{metrics::Metrics, state::downs::DownRecord};

/// The socket does not answer. No session is closed and no server drained until it does.
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
