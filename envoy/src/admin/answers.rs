//! Clusters, statistics, and the server itself.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::Value;

use super::json::{address, at, duration, flag, list, number, text};

/// The answer to `/clusters`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clusters {
    /// The hosts of each cluster, by the name under which it asks for its endpoints (its
    /// `service_name`), else its own.
    pub clusters: BTreeMap<String, Vec<Host>>,
}

/// One host of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where it is; `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    /// The name that it was given.
    pub hostname: String,
    /// Its state by endpoint discovery.
    pub health: HostHealth,
    /// Whether an active check of Envoy's own has failed.
    pub failed_active_check: bool,
    /// Whether it is left out as an outlier.
    pub outlier: bool,
    /// Sessions that go through it now.
    pub connections: u64,
}

/// The state of a host by endpoint discovery.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum HostHealth {
    /// Nothing, or that it is well.
    Healthy,
    /// It is to get no new sessions, by intent.
    Draining,
    /// It is to get fewer.
    Degraded,
    /// It is to get none.
    Unhealthy,
}

impl Clusters {
    /// Reads the answer; `None` if it is none.
    pub fn read(answer: &Value) -> Option<Self> {
        let statuses = at(answer, "cluster_statuses");
        // Without any cluster the list is left out.
        if !statuses.is_array() && answer.as_object().is_none_or(|answer| !answer.is_empty()) {
            return None;
        }
        let named = |status: &Value, name: &str| {
            let hosts = list(status, "host_statuses").iter().map(host).collect();
            (text(status, name).to_owned(), hosts)
        };
        let all = list(answer, "cluster_statuses");
        let own = all.iter().map(|status| named(status, "name"));
        // Last, for the aggregate above a discovered cluster may have the same name, and no hosts.
        let discovered = all.iter().filter(|status| !text(status, "eds_service_name").is_empty());
        let discovered = discovered.map(|status| named(status, "eds_service_name"));
        Some(Self { clusters: own.chain(discovered).collect() })
    }
}

fn host(status: &Value) -> Host {
    let counts = list(status, "stats");
    let active = counts.iter().find(|stat| text(stat, "name") == "cx_active");
    Host {
        address: address(at(status, "address")),
        hostname: text(status, "hostname").to_owned(),
        health: match text(status, "health_status.eds_health_status") {
            "DRAINING" => HostHealth::Draining,
            "DEGRADED" => HostHealth::Degraded,
            "UNHEALTHY" | "TIMEOUT" => HostHealth::Unhealthy,
            _ => HostHealth::Healthy,
        },
        failed_active_check: flag(status, "health_status.failed_active_health_check"),
        outlier: flag(status, "health_status.failed_outlier_check"),
        connections: active.map_or(0, |stat| number(stat, "value")),
    }
}

/// The answer to `/stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Counters and gauges, by name. Texts and histograms are left out.
    pub values: BTreeMap<String, u64>,
}

impl Stats {
    /// Reads the answer; `None` if it is none.
    pub fn read(answer: &Value) -> Option<Self> {
        let stats = at(answer, "stats").as_array()?;
        let value =
            |stat: &Value| Some((stat.get("name")?.as_str()?.to_owned(), stat.get("value")?.as_u64()?));
        Some(Self { values: stats.iter().filter_map(value).collect() })
    }

    /// Access log entries that Envoy could not send or had no room for, since its start.
    pub fn log_entries_lost(&self) -> u64 {
        let lost = ["logs_dropped", "grpc_entries_flush_failed"];
        let of = |name| self.values.get(&format!("access_logs.grpc_access_log.{name}")).copied();
        lost.iter().filter_map(of).sum()
    }
}

/// The answer to `/server_info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its version, like `1.40.0`.
    pub version: String,
    /// `LIVE`, or what it does instead.
    pub state: String,
    /// Its `node.id`: what it calls itself towards the agent.
    pub node: String,
    /// How long it runs.
    pub uptime: Duration,
}

impl ServerInfo {
    /// Reads the answer; `None` if it is none.
    pub fn read(answer: &Value) -> Option<Self> {
        // `hash/version/scm state/build type/TLS library`
        let version = answer.get("version")?.as_str()?;
        let state = text(answer, "state");
        Some(Self {
            version: version.split('/').nth(1).unwrap_or(version).to_owned(),
            // The state with the number 0 is left out.
            state: if state.is_empty() { "LIVE" } else { state }.to_owned(),
            node: text(answer, "node.id").to_owned(),
            uptime: duration(answer, "uptime_current_epoch").unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cluster_is_known_by_the_name_it_asks_for() {
        let host = json!({"address": {"socket_address": {"address": "192.0.2.1", "port_value": 5432}}});
        let answer = json!({"cluster_statuses": [
            {"name": "orders_agent", "eds_service_name": "orders", "host_statuses": [host]},
            {"name": "orders"},
        ]});
        let clusters = Clusters::read(&answer).unwrap_or_default().clusters;
        assert_eq!(clusters.get("orders").map(Vec::len), Some(1));
    }
}
