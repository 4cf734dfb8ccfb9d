//! The relevant part of `/config_dump`: how clusters choose hosts, and when sessions are closed. Settings by
//! other means than these are not seen.

use std::time::Duration;

use serde_json::Value;

use super::json::{at, duration, flag, is, list, number, text};

const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);

/// In percent of healthy hosts.
const DEFAULT_PANIC_THRESHOLD: f64 = 50.0;

const DEFAULT_MERGE_WINDOW: Duration = Duration::from_secs(1);

const DEFAULT_CONNECTIONS: u64 = 1_024;

/// The settings of one Envoy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub clusters: Vec<ClusterSettings>,
    /// Its listeners with a `tcp_proxy`.
    pub listeners: Vec<ListenerSettings>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSettings {
    pub name: String,
    /// The name in endpoint discovery; `None` without endpoint discovery.
    pub discovered_as: Option<String>,
    /// The clusters of an aggregate cluster, in order; empty for any other.
    pub aggregates: Vec<String>,
    /// In percent.
    pub panic_threshold: f64,
    pub merge_window: Duration,
    /// `close_connections_on_host_health_failure`.
    pub close_on_failure: bool,
    /// Whether it has active health checks.
    pub active_checks: bool,
    /// `ignore_health_on_host_removal`.
    pub ignore_health_on_removal: bool,
    pub max_connections: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSettings {
    pub name: String,
    /// Whether it waits for the client's first bytes.
    pub tls_inspector: bool,
    pub proxies: Vec<TcpProxySettings>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TcpProxySettings {
    pub clusters: Vec<String>,
    /// Zero: never.
    pub idle_timeout: Duration,
    pub max_duration: Option<Duration>,
    pub grpc_log: bool,
    /// `flush_access_log_on_connected`.
    pub log_on_connected: bool,
    /// `access_log_flush_interval`.
    pub log_interval: Option<Duration>,
}

impl Settings {
    /// Reads the answer; `None` if it is none.
    pub fn read(answer: &Value) -> Option<Self> {
        let configs = at(answer, "configs").as_array()?;
        let mut settings = Self::default();
        for config in configs {
            if is(config, "envoy.admin.v3.ClustersConfigDump") {
                let all =
                    list(config, "static_clusters").iter().chain(list(config, "dynamic_active_clusters"));
                settings.clusters.extend(all.map(|one| cluster(at(one, "cluster"))));
            }
            if is(config, "envoy.admin.v3.ListenersConfigDump") {
                let fixed = list(config, "static_listeners").iter().map(|one| at(one, "listener"));
                let dynamic =
                    list(config, "dynamic_listeners").iter().map(|one| at(one, "active_state.listener"));
                let all = fixed.chain(dynamic).map(listener);
                settings.listeners.extend(all.filter(|listener| !listener.proxies.is_empty()));
            }
        }
        Some(settings)
    }

    /// The longest interval of periodic entries; `None` if some sessions have none.
    pub fn log_interval(&self) -> Option<Duration> {
        let mut proxies = self.listeners.iter().flat_map(|listener| &listener.proxies);
        let first = proxies.next()?.log_interval?;
        proxies.try_fold(first, |longest, proxy| Some(longest.max(proxy.log_interval?)))
    }
}

fn cluster(cluster: &Value) -> ClusterSettings {
    let name = text(cluster, "name");
    let common = at(cluster, "common_lb_config");
    let threshold = at(common, "healthy_panic_threshold");
    let custom = at(cluster, "cluster_type.typed_config");
    let service = text(cluster, "eds_cluster_config.service_name");
    let mut limits = list(cluster, "circuit_breakers.thresholds")
        .iter()
        .filter(|limits| matches!(text(limits, "priority"), "" | "DEFAULT"));
    let limit = limits
        .next()
        .map(|limits| number(limits, "max_connections.value").max(number(limits, "max_connections")));
    ClusterSettings {
        name: name.to_owned(),
        discovered_as: (text(cluster, "type") == "EDS")
            .then(|| if service.is_empty() { name } else { service }.to_owned()),
        aggregates: list(custom, "clusters").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        // Zero is left out of the message, not the message itself.
        panic_threshold: if threshold.is_object() {
            at(threshold, "value").as_f64().unwrap_or_default()
        } else {
            DEFAULT_PANIC_THRESHOLD
        },
        merge_window: duration(common, "update_merge_window").unwrap_or(DEFAULT_MERGE_WINDOW),
        close_on_failure: flag(cluster, "close_connections_on_host_health_failure"),
        active_checks: !list(cluster, "health_checks").is_empty(),
        ignore_health_on_removal: flag(cluster, "ignore_health_on_host_removal"),
        max_connections: limit.filter(|limit| *limit > 0).unwrap_or(DEFAULT_CONNECTIONS),
    }
}

fn listener(listener: &Value) -> ListenerSettings {
    let chains =
        list(listener, "filter_chains").iter().chain(std::iter::once(at(listener, "default_filter_chain")));
    let filters = chains.flat_map(|chain| list(chain, "filters")).map(|filter| at(filter, "typed_config"));
    let inspector = |filter: &Value| {
        is(at(filter, "typed_config"), "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")
    };
    ListenerSettings {
        name: text(listener, "name").to_owned(),
        tls_inspector: list(listener, "listener_filters").iter().any(inspector),
        proxies: filters
            .filter(|filter| is(filter, "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"))
            .map(tcp_proxy)
            .collect(),
    }
}

fn tcp_proxy(proxy: &Value) -> TcpProxySettings {
    let weighted = list(proxy, "weighted_clusters.clusters").iter().map(|one| text(one, "name"));
    let clusters = std::iter::once(text(proxy, "cluster")).chain(weighted).filter(|name| !name.is_empty());
    let grpc = |log: &Value| {
        is(at(log, "typed_config"), "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig")
    };
    let options = at(proxy, "access_log_options");
    // Two of these have an older name of the same meaning.
    let older = |name| flag(proxy, name);
    TcpProxySettings {
        clusters: clusters.map(str::to_owned).collect(),
        idle_timeout: duration(proxy, "idle_timeout").unwrap_or(DEFAULT_IDLE_TIMEOUT),
        max_duration: duration(proxy, "max_downstream_connection_duration"),
        grpc_log: list(proxy, "access_log").iter().any(grpc),
        log_on_connected: flag(options, "flush_access_log_on_connected")
            || older("flush_access_log_on_connected"),
        log_interval: duration(options, "access_log_flush_interval")
            .or_else(|| duration(proxy, "access_log_flush_interval")),
    }
}
