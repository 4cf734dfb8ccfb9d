//! Settings of Envoy that are unsafe with this agent, and why.
//!
//! Pure. Every rule was measured, or is about a documented default of Envoy.

use std::{collections::BTreeSet, fmt, time::Duration};

use super::{Settings, settings::TcpProxySettings};

/// The requirements for the settings.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The clusters whose endpoints come from the agent.
    pub clusters: BTreeSet<String>,
    /// The clusters among them whose server speaks first: MySQL and MariaDB.
    pub server_first: BTreeSet<String>,
    /// `None` if the agent does not retire sessions.
    pub max_age: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Advice {
    /// A cluster or a listener.
    pub subject: String,
    pub rule: Rule,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Envoy does not have this cluster of the agent.
    ClusterMissing,
    /// The access log has another name for the cluster than the agent.
    NameDiffers,
    /// With few healthy hosts Envoy also uses the others.
    PanicThreshold,
    /// Changes of health are delayed.
    MergeWindow,
    /// A failed check closes sessions, and checks fail when the agent is dead.
    CloseOnFailure,
    /// A removed host stays while its check passes.
    RemovalIgnored,
    /// The default limit of connections.
    ConnectionLimit,
    /// No fallback before the agent is connected.
    NoFallback,
    /// The listener waits for the client, which waits for the server.
    TlsInspector,
    /// Sessions without traffic are closed.
    IdleTimeout,
    /// Sessions are closed, busy or not, before the agent retires them.
    MaxDuration,
    /// Sessions are not logged.
    NoAccessLog,
    /// No entry when a session is connected to a server.
    NotOnConnected,
    NoLogInterval,
}

/// All warnings, sorted, each once.
pub fn advise(settings: &Settings, setup: &Setup) -> Vec<Advice> {
    let mut all = BTreeSet::new();
    let mut warn = |subject: &str, rule| {
        all.insert(Advice { subject: subject.to_owned(), rule });
    };
    let from_agent = |name: &str| {
        settings.clusters.iter().any(|cluster| {
            cluster.name == name
                && cluster.discovered_as.as_ref().is_some_and(|name| setup.clusters.contains(name))
        })
    };
    for name in &setup.clusters {
        let has = |discovered: &Option<String>| discovered.as_ref() == Some(name);
        if !settings.clusters.iter().any(|cluster| has(&cluster.discovered_as) || cluster.name == *name) {
            warn(name, Rule::ClusterMissing);
        }
    }
    for cluster in &settings.clusters {
        let own = from_agent(&cluster.name) || setup.clusters.contains(&cluster.name);
        let above = cluster.aggregates.iter().any(|name| from_agent(name));
        if !own && !above {
            continue;
        }
        let name = &*cluster.name;
        if cluster.discovered_as.as_ref().is_some_and(|known| setup.clusters.contains(known) && known != name)
        {
            warn(name, Rule::NameDiffers);
        }
        if cluster.panic_threshold > 0.0 {
            warn(name, Rule::PanicThreshold);
        }
        if own && !cluster.merge_window.is_zero() {
            warn(name, Rule::MergeWindow);
        }
        if own && cluster.close_on_failure && cluster.active_checks {
            warn(name, Rule::CloseOnFailure);
        }
        if own
            && cluster.discovered_as.is_some()
            && cluster.active_checks
            && !cluster.ignore_health_on_removal
        {
            warn(name, Rule::RemovalIgnored);
        }
        if own && cluster.max_connections <= 1_024 {
            warn(name, Rule::ConnectionLimit);
        }
    }
    for listener in &settings.listeners {
        for proxy in &listener.proxies {
            let reached = reached(settings, proxy);
            let own = |name: &&String| from_agent(name) || setup.clusters.contains(*name);
            if !reached.iter().any(|name| own(&name)) {
                continue;
            }
            let name = &*listener.name;
            if proxy.clusters.iter().any(|name| from_agent(name)) {
                warn(name, Rule::NoFallback);
            }
            if listener.tls_inspector && reached.iter().any(|name| setup.server_first.contains(name)) {
                warn(name, Rule::TlsInspector);
            }
            if !proxy.idle_timeout.is_zero() {
                warn(name, Rule::IdleTimeout);
            }
            if let (Some(most), Some(max_age)) = (proxy.max_duration, setup.max_age)
                && most <= max_age
            {
                warn(name, Rule::MaxDuration);
            }
            if proxy.grpc_log {
                if !proxy.log_on_connected {
                    warn(name, Rule::NotOnConnected);
                }
                if proxy.log_interval.is_none_or(|interval| interval.is_zero()) {
                    warn(name, Rule::NoLogInterval);
                }
            } else {
                warn(name, Rule::NoAccessLog);
            }
        }
    }
    all.into_iter().collect()
}

/// The clusters that sessions may reach, with aggregate clusters and names of discovery.
fn reached(settings: &Settings, proxy: &TcpProxySettings) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&String> = proxy.clusters.iter().collect();
    while let Some(name) = next.pop() {
        if !reached.insert(name.clone()) {
            continue;
        }
        for cluster in settings.clusters.iter().filter(|cluster| cluster.name == *name) {
            reached.extend(cluster.discovered_as.clone());
            next.extend(&cluster.aggregates);
        }
    }
    reached
}

impl fmt::Display for Advice {
    /// What happens, and what to set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.rule.advice())
    }
}

impl Rule {
    /// What happens, and what to set.
    pub fn advice(self) -> &'static str {
        match self {
            Self::ClusterMissing => "Envoy has no cluster of this name, nor one with this `service_name`",
            Self::NameDiffers => {
                "the access log calls sessions by this name, and the agent by `service_name`, so none is joined: \
                 call the cluster as the agent does"
            }
            Self::PanicThreshold => {
                "with few healthy hosts Envoy uses the unhealthy ones, too, and a writer is always one of \
                 several: set `common_lb_config: {healthy_panic_threshold: {value: 0}}`"
            }
            Self::MergeWindow => {
                "a failover waits up to this long: set `common_lb_config: {update_merge_window: 0s}`"
            }
            Self::CloseOnFailure => {
                "an agent that stops fails all its checks, and this closes every session then: do not set \
                 `close_connections_on_host_health_failure` where the agent answers the checks"
            }
            Self::RemovalIgnored => {
                "a host that the agent no longer names keeps its sessions while its check passes: set \
                 `ignore_health_on_host_removal: true`"
            }
            Self::ConnectionLimit => {
                "the 1,025th session is refused: set `circuit_breakers` with `max_connections` as the databases allow"
            }
            Self::NoFallback => {
                "before the agent is heard for the first time there is no endpoint: put an aggregate cluster \
                 before this one that falls back to the RDS endpoint by DNS"
            }
            Self::TlsInspector => {
                "the server speaks first, so the inspector stalls each login for 15 s: take `tls_inspector` out"
            }
            Self::IdleTimeout => {
                "sessions without traffic are cut, a query that runs as long included: set `idle_timeout: 0s`"
            }
            Self::MaxDuration => {
                "Envoy cuts sessions, busy ones too, before the agent retires them between two transactions: \
                 set `max_downstream_connection_duration` well above `max_age`, or not at all"
            }
            Self::NoAccessLog => {
                "sessions are not logged, so none is retired: add `envoy.access_loggers.tcp_grpc`"
            }
            Self::NotOnConnected => {
                "a session is not known before its first periodic entry: set `flush_access_log_on_connected: true`"
            }
            Self::NoLogInterval => {
                "after a restart of the agent, sessions of before stay unknown: set `access_log_flush_interval: 10s`"
            }
        }
    }
}
