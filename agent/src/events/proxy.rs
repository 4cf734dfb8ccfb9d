//! The proxy's runtime socket.

use tracing::{info, warn};

use super::Event;
use crate::metrics::Metrics;

/// The socket does not answer: nothing is closed and nothing drained until it does.
#[derive(Debug)]
pub struct ProxyLost<'a> {
    /// The socket.
    pub proxy: &'a str,
    /// What went wrong, and what to do about it.
    pub error: String,
    /// Whether this is news, or a retry that failed alike.
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

/// The socket answers, and does not list sessions: ages are not known, so nothing is closed.
#[derive(Debug)]
pub struct SessionsNotListed<'a> {
    /// The socket.
    pub proxy: &'a str,
    /// What went wrong, and what to do about it.
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

/// The master socket does not tell of old workers: what lives on in them is not joined.
#[derive(Debug)]
pub struct OldWorkersNotListed<'a> {
    /// The master socket.
    pub proxy: &'a str,
    /// What went wrong, and what to do about it.
    pub error: String,
}

impl Event for OldWorkersNotListed<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            proxy = self.proxy,
            error = self.error,
            "old workers of the proxy not listed: their sessions are held, all else goes on"
        );
    }
}

/// The socket answers.
#[derive(Debug)]
pub struct ProxyBack<'a> {
    /// The socket.
    pub proxy: &'a str,
    /// HAProxy's version.
    pub version: &'a str,
    /// The worker's process id.
    pub pid: u32,
}

impl Event for ProxyBack<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.proxy_up.get_or_create(&self.proxy.into()).set(1);
        info!(proxy = self.proxy, version = self.version, pid = self.pid, "runtime socket answers");
    }
}
