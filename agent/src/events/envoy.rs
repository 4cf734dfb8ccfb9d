//! Access logs and the admin interface of Envoy.

use envoy::admin::{Advice, Difference};
use tracing::{info, warn};

use super::Event;
use crate::metrics::Metrics;

/// An Envoy streams its access log. All its sessions are known within one flush interval.
#[derive(Debug)]
pub struct AccessLogHeard<'a> {
    pub proxy: &'a str,
    pub node: &'a str,
}

impl Event for AccessLogHeard<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.proxy_up.get_or_create(&self.proxy.into()).set(1);
        info!(proxy = self.proxy, node = self.node, "access log stream opened");
    }
}

/// An access log stream ended. The sessions of the Envoy are held until there is a new one.
///
/// Do: check that the Envoy runs and reaches `listen.envoy`.
#[derive(Debug)]
pub struct AccessLogLost<'a> {
    pub proxy: &'a str,
    pub node: &'a str,
    /// Whether other Envoys of the same configuration still stream theirs.
    pub others: bool,
}

impl Event for AccessLogLost<'_> {
    fn emit(&self, metrics: &Metrics) {
        let up = i64::from(self.others);
        metrics.proxy_up.get_or_create(&self.proxy.into()).set(up);
        warn!(
            proxy = self.proxy,
            node = self.node,
            "access log stream lost: sessions are held, health goes on"
        );
    }
}

/// An access log stream was refused or closed because of what the peer did.
///
/// Do: find the peer at the address; its `node.id` has to be configured.
#[derive(Debug)]
pub struct AccessLogRefused<'a> {
    pub address: &'a str,
    pub why: &'a str,
}

impl Event for AccessLogRefused<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.access_log_streams_refused.inc();
        warn!(source = self.address, reason = self.why, "access log stream refused");
    }
}

/// Access log entries that describe no session, because their format is of another configuration.
///
/// Do: use the access log format of deploy/envoy.
#[derive(Debug)]
pub struct EntriesSkipped<'a> {
    pub proxy: &'a str,
    /// The `node.id`. Logged but not a metric label, because the peer chooses it.
    pub node: &'a str,
    pub count: usize,
    pub news: bool,
}

impl Event for EntriesSkipped<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.access_log_skipped.get_or_create(&self.proxy.into()).inc_by(self.count as u64);
        if self.news {
            warn!(
                proxy = self.proxy,
                node = self.node,
                count = self.count,
                "access log entries without session, kind or start; is this the shipped access log format?"
            );
        }
    }
}

/// The admin interface of an Envoy answers.
#[derive(Debug)]
pub struct AdminBack<'a> {
    pub proxy: &'a str,
    pub version: &'a str,
    pub node: &'a str,
    pub state: &'a str,
}

impl Event for AdminBack<'_> {
    fn emit(&self, _: &Metrics) {
        info!(
            proxy = self.proxy,
            version = self.version,
            node = self.node,
            state = self.state,
            "admin interface answers"
        );
    }
}

/// The admin interface does not answer. What Envoy uses is not verified; nothing else changes.
///
/// Do: check `envoy.admin` and that the Envoy runs.
#[derive(Debug)]
pub struct AdminLost<'a> {
    pub proxy: &'a str,
    pub error: String,
}

impl Event for AdminLost<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            proxy = self.proxy,
            error = self.error,
            "admin interface lost: what Envoy uses is not verified, everything else goes on"
        );
    }
}

/// A setting of Envoy is unsafe.
///
/// Do: follow `advice`.
#[derive(Debug)]
pub struct SettingUnsafe<'a> {
    pub proxy: &'a str,
    pub advice: &'a Advice,
}

impl Event for SettingUnsafe<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            proxy = self.proxy,
            subject = self.advice.subject,
            advice = self.advice.rule.advice(),
            "a setting of Envoy's is not safe"
        );
    }
}

/// Envoy lastingly uses something else than it was sent.
///
/// Do: compare the Envoy's configuration with deploy/envoy; restart the Envoy if it stays.
#[derive(Debug)]
pub struct NotTaken<'a> {
    pub proxy: &'a str,
    pub difference: &'a Difference,
}

impl Event for NotTaken<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(proxy = self.proxy, difference = %self.difference, "Envoy does not have what it was sent");
    }
}

/// Envoy dropped access log entries.
#[derive(Debug)]
pub struct LogEntriesLost<'a> {
    pub proxy: &'a str,
    /// Since the last report.
    pub count: u64,
}

impl Event for LogEntriesLost<'_> {
    fn emit(&self, _: &Metrics) {
        info!(
            proxy = self.proxy,
            count = self.count,
            "Envoy dropped access log entries; live sessions are reported again, failures are in its file log"
        );
    }
}
