//! Envoys: whether their access log comes, and what went wrong with a hand-off.

use std::net::SocketAddr;

use envoy::{
    access_log::{Event as Entry, HandOff},
    admin::{Advice, Difference},
};
use tracing::{debug, info, warn};

use super::Event;
use crate::metrics::{Metrics, labels::OfHandOff};

/// An Envoy streams its access log: its sessions are known within one interval.
#[derive(Debug)]
pub struct AccessLogHeard<'a> {
    /// The proxy.
    pub proxy: &'a str,
    /// The Envoy's `node.id`.
    pub node: &'a str,
}

impl Event for AccessLogHeard<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.proxy_up.get_or_create(&self.proxy.into()).set(1);
        info!(proxy = self.proxy, node = self.node, "access log comes");
    }
}

/// An Envoy's access log comes no more: its sessions are held until it does.
#[derive(Debug)]
pub struct AccessLogLost<'a> {
    /// The proxy.
    pub proxy: &'a str,
    /// The Envoy's `node.id`.
    pub node: &'a str,
    /// Whether those of others with the same configuration still come.
    pub others: bool,
}

impl Event for AccessLogLost<'_> {
    fn emit(&self, metrics: &Metrics) {
        let up = i64::from(self.others);
        metrics.proxy_up.get_or_create(&self.proxy.into()).set(up);
        warn!(proxy = self.proxy, node = self.node, "access log lost: sessions are held, health goes on");
    }
}

/// A stream of an access log was not opened, or was ended for what the peer did.
#[derive(Debug)]
pub struct AccessLogRefused<'a> {
    /// Where it called from.
    pub address: &'a str,
    /// Why, and what to do about it.
    pub why: &'a str,
}

impl Event for AccessLogRefused<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.access_log_streams_refused.inc();
        warn!(source = self.address, reason = self.why, "stream of an access log refused");
    }
}

/// Entries that tell of no session: the format of another configuration.
#[derive(Debug)]
pub struct EntriesSkipped<'a> {
    /// The proxy.
    pub proxy: &'a str,
    /// The Envoy's `node.id`, which is for the log alone: a peer may call itself anything.
    pub node: &'a str,
    /// How many at once.
    pub count: usize,
    /// Whether this is news.
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
                "access log entries without session, kind or start: not of the shipped configuration"
            );
        }
    }
}

/// A client that was not handed to a database server, or one that may have been refused there.
#[derive(Debug)]
pub struct HandOffFailed<'a> {
    /// The proxy.
    pub proxy: &'a str,
    /// What became of it.
    pub hand_off: HandOff,
    /// The cluster, for the metric: one that is configured, or none of a peer's own choice.
    pub label: &'a str,
    /// The end of the session.
    pub entry: &'a Entry,
    /// When that was, in seconds since 1970 by Envoy's clock.
    pub ended: f64,
}

impl Event for HandOffFailed<'_> {
    fn emit(&self, metrics: &Metrics) {
        let entry = self.entry;
        let cluster = entry.cluster.as_deref().unwrap_or("-");
        let labels = OfHandOff {
            proxy: self.proxy.into(),
            cluster: self.label.into(),
            reason: self.hand_off.to_string(),
        };
        metrics.hand_offs.get_or_create(&labels).inc();
        let address = |address: Option<SocketAddr>| address.map_or("-".into(), |it| it.to_string());
        let (source, peer) = (address(entry.source), address(entry.peer));
        let lasted = entry.lasted.unwrap_or_default().as_secs_f64();
        let error = entry.transport_failure.as_deref().unwrap_or("-");
        if self.hand_off.failed() {
            warn!(
                proxy = self.proxy,
                cluster,
                source,
                peer,
                reason = %self.hand_off,
                flags = %entry.flags,
                error,
                took_s = lasted,
                ended = self.ended,
                advice = self.hand_off.advice(),
                "client not handed to a server"
            );
        } else {
            debug!(
                proxy = self.proxy,
                cluster,
                source,
                peer,
                reason = %self.hand_off,
                took_s = lasted,
                ended = self.ended,
                advice = self.hand_off.advice(),
                "very short session"
            );
        }
    }
}

/// The admin interface answers.
#[derive(Debug)]
pub struct AdminBack<'a> {
    /// The proxy.
    pub proxy: &'a str,
    /// Envoy's version.
    pub version: &'a str,
    /// Its `node.id`.
    pub node: &'a str,
    /// What it does.
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

/// The admin interface does not answer: nothing is confirmed, and nothing else changes.
#[derive(Debug)]
pub struct AdminLost<'a> {
    /// The proxy.
    pub proxy: &'a str,
    /// What went wrong, and what to do about it.
    pub error: String,
}

impl Event for AdminLost<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            proxy = self.proxy,
            error = self.error,
            "admin interface lost: what Envoy took is not confirmed, all else goes on"
        );
    }
}

/// A setting of Envoy's is not safe.
#[derive(Debug)]
pub struct SettingUnsafe<'a> {
    /// The proxy.
    pub proxy: &'a str,
    /// What and why.
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

/// Envoy does not have what it was sent, and that lasts.
#[derive(Debug)]
pub struct NotTaken<'a> {
    /// The proxy.
    pub proxy: &'a str,
    /// What differs.
    pub difference: &'a Difference,
}

impl Event for NotTaken<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(proxy = self.proxy, difference = %self.difference, "Envoy does not have what it was sent");
    }
}

/// Envoy could not send entries of its access log.
#[derive(Debug)]
pub struct LogEntriesLost<'a> {
    /// The proxy.
    pub proxy: &'a str,
    /// How many more than before.
    pub count: u64,
}

impl Event for LogEntriesLost<'_> {
    fn emit(&self, _: &Metrics) {
        info!(
            proxy = self.proxy,
            count = self.count,
            "access log entries that Envoy could not send: live sessions are told of again, failures are in its file log"
        );
    }
}
