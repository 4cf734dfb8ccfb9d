//! Envoys that take endpoints, and what becomes of what they are sent.

use std::time::Duration;

use envoy::eds::{Protocol, Rejected};
use tracing::{debug, info, warn};

use super::Event;
use crate::metrics::{
    Metrics,
    labels::{OfPush, PushResult},
};

/// An Envoy has opened a stream for endpoints.
#[derive(Debug)]
pub struct EnvoyConnected<'a> {
    /// The proxy.
    pub proxy: &'a str,
    /// Its `node.id`.
    pub node: &'a str,
    /// Where it called from.
    pub address: &'a str,
    /// What it speaks.
    pub protocol: Protocol,
}

impl Event for EnvoyConnected<'_> {
    fn emit(&self, _: &Metrics) {
        let protocol = format!("{:?}", self.protocol);
        info!(proxy = self.proxy, node = self.node, source = self.address, protocol, "Envoy takes endpoints");
    }
}

/// Such a stream has ended. The Envoy keeps what it has, and comes back.
#[derive(Debug)]
pub struct EnvoyLeft<'a> {
    /// Its `node.id`.
    pub node: &'a str,
    /// Where it called from.
    pub address: &'a str,
}

impl Event for EnvoyLeft<'_> {
    fn emit(&self, _: &Metrics) {
        info!(node = self.node, source = self.address, "Envoy takes endpoints no more");
    }
}

/// An Envoy has taken what it was sent.
#[derive(Debug)]
pub struct EndpointsTaken<'a> {
    /// The proxy.
    pub proxy: &'a str,
    /// Its `node.id`.
    pub node: &'a str,
    /// The version of what it was sent.
    pub version: &'a str,
    /// From the sending to the answer.
    pub after: Duration,
}

impl Event for EndpointsTaken<'_> {
    fn emit(&self, metrics: &Metrics) {
        let labels = OfPush { proxy: self.proxy.into(), result: PushResult::Taken };
        metrics.endpoint_pushes.get_or_create(&labels).inc();
        metrics.endpoint_push_seconds.get_or_create(&self.proxy.into()).observe(self.after.as_secs_f64());
        debug!(
            proxy = self.proxy,
            node = self.node,
            version = self.version,
            took_s = self.after.as_secs_f64(),
            "endpoints taken"
        );
    }
}

/// An Envoy has not taken what it was sent: it goes on with what it had.
#[derive(Debug)]
pub struct EndpointsRejected<'a> {
    /// The proxy.
    pub proxy: &'a str,
    /// Its `node.id`.
    pub node: &'a str,
    /// What, and Envoy's words.
    pub rejected: &'a Rejected,
}

impl Event for EndpointsRejected<'_> {
    fn emit(&self, metrics: &Metrics) {
        let labels = OfPush { proxy: self.proxy.into(), result: PushResult::Rejected };
        metrics.endpoint_pushes.get_or_create(&labels).inc();
        warn!(
            proxy = self.proxy,
            node = self.node,
            clusters = self.rejected.clusters.join(","),
            version = self.rejected.version,
            error = self.rejected.message,
            "endpoints rejected: Envoy goes on with those it had"
        );
    }
}

/// A stream for endpoints was not opened, or was ended for what the peer did.
#[derive(Debug)]
pub struct EndpointsRefused<'a> {
    /// Where it called from.
    pub address: &'a str,
    /// Why, and what to do about it.
    pub why: &'a str,
}

impl Event for EndpointsRefused<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.endpoint_streams_refused.inc();
        warn!(source = self.address, reason = self.why, "stream for endpoints refused");
    }
}
