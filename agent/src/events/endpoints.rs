//! Endpoint discovery: Envoys that connect, and their answers.

use std::time::Duration;

use envoy::eds::{Protocol, Rejected};
use tracing::{debug, info, warn};

use super::{Event, rounded};
use crate::metrics::{
    Metrics,
    labels::{OfPush, PushResult, Word},
};

/// An Envoy opened an endpoint stream.
#[derive(Debug)]
pub struct EnvoyConnected<'a> {
    pub proxy: &'a str,
    pub node: &'a str,
    pub address: &'a str,
    pub protocol: Protocol,
}

impl Event for EnvoyConnected<'_> {
    fn emit(&self, _: &Metrics) {
        let protocol = Word::of(&self.protocol);
        info!(proxy = self.proxy, node = self.node, source = self.address, %protocol, "Envoy connected for endpoints");
    }
}

/// An endpoint stream ended. The Envoy keeps its endpoints and reconnects.
#[derive(Debug)]
pub struct EnvoyLeft<'a> {
    pub node: &'a str,
    pub address: &'a str,
}

impl Event for EnvoyLeft<'_> {
    fn emit(&self, _: &Metrics) {
        info!(node = self.node, source = self.address, "Envoy disconnected; it keeps its endpoints");
    }
}

/// An Envoy accepted endpoints.
#[derive(Debug)]
pub struct EndpointsTaken<'a> {
    pub proxy: &'a str,
    pub node: &'a str,
    pub version: &'a str,
    /// Time from sending to the answer.
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
            took_s = rounded(self.after.as_secs_f64()),
            "endpoints accepted"
        );
    }
}

/// An Envoy rejected endpoints and keeps those it had.
///
/// Do: compare the EDS configuration of the Envoy with deploy/envoy; the error is Envoy's.
#[derive(Debug)]
pub struct EndpointsRejected<'a> {
    pub proxy: &'a str,
    pub node: &'a str,
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
            "endpoints rejected; Envoy keeps those it had"
        );
    }
}

/// An endpoint stream was refused or closed because of what the peer did.
///
/// Do: find the peer at the address, and why it breaks the protocol.
#[derive(Debug)]
pub struct EndpointsRefused<'a> {
    pub address: &'a str,
    pub why: &'a str,
}

impl Event for EndpointsRefused<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.endpoint_streams_refused.inc();
        warn!(source = self.address, reason = self.why, "endpoint stream refused");
    }
}
