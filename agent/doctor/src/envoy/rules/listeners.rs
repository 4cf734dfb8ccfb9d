//! TCP proxies: timeouts, tries, the access log.

use super::{
    super::model::{Config, Part, Proxy, targets},
    listener,
};
use crate::{
    rule::{About, Found, Rule, Severity},
    tree::Node,
};

/// A running statement is silent on the wire. Reports and migrations of half an hour are common.
const LONG_QUERY: f64 = 1800.0;

/// Fewer tries, one second apart, are over before a writer is promoted.
const FEWEST_ATTEMPTS: f64 = 10.0;

pub(super) const RULES: &[Rule<Config>] = &[
    Rule {
        about: About {
            id: "envoy-idle-timeout",
            severity: Severity::Error,
            title: "an idle timeout ends running statements and waiting pools",
            why: "A running statement sends nothing, so it looks idle to Envoy. The client sees its connection end, \
                  while the database works on and may still commit. Without the key, Envoy cuts after an hour.",
            fix: "Set `idle_timeout: 0s` and find dead peers with `tcp_keepalive`; limit the age of sessions with \
                  `sessions: {mode: retire}` in the agent's configuration.",
            bad: listener!("", "", "          idle_timeout: 60s\n"),
            good: listener!("", "", "          idle_timeout: 0s\n"),
        },
        check: |config, _| {
            each(config, |proxy| {
                let idle = proxy.config.node.get("idle_timeout");
                match idle.map(|node| (node, node.seconds())) {
                    None => Some((
                        proxy.config.nearest(&[]),
                        "`idle_timeout` is not set: the default is 1h".into(),
                    )),
                    Some((node, Some(seconds))) if seconds > 0.0 && seconds < LONG_QUERY => Some((
                        proxy.config.position(node),
                        format!("`idle_timeout` is {seconds} s: longer statements are cut"),
                    )),
                    Some(_) => None,
                }
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-max-duration",
            severity: Severity::Error,
            title: "sessions are cut at a maximum duration",
            why: "`max_downstream_connection_duration` closes a session at its age whatever it does, also in the middle \
                  of a transaction.",
            fix: "Remove it. The agent retires sessions at an age between transactions: `sessions: {mode: retire}`.",
            bad: listener!("", "", "          max_downstream_connection_duration: 900s\n"),
            good: listener!("", "", "          idle_timeout: 0s\n"),
        },
        check: |config, _| {
            each(config, |proxy| {
                let node = proxy.config.node.get("max_downstream_connection_duration")?;
                let shown = node.text().unwrap_or_default();
                Some((
                    proxy.config.position(node),
                    format!("`max_downstream_connection_duration` is {shown}"),
                ))
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-connect-attempts",
            severity: Severity::Warning,
            title: "a refused connection is tried too few times, or too fast",
            why: "By default a refused connection is tried once; without a backoff ten tries at a refusing instance are over \
                  in 20 ms. Clients get an error instead of waiting for the next writer.",
            fix: "Set `max_connect_attempts: 30` and `backoff_options: {base_interval: 1s, max_interval: 1s}`.",
            bad: listener!("", "", "          max_connect_attempts: 10\n"),
            good: listener!(
                "",
                "",
                "          max_connect_attempts: 30\n          backoff_options: {base_interval: 1s, max_interval: 1s}\n"
            ),
        },
        check: |config, _| {
            each(config, |proxy| {
                let node = &proxy.config.node;
                let attempts = node.get("max_connect_attempts").and_then(Node::number).unwrap_or(1.0);
                let at = proxy.config.nearest(&["max_connect_attempts"]);
                if attempts < FEWEST_ATTEMPTS {
                    Some((at, format!("`max_connect_attempts` is {attempts}")))
                } else {
                    node.get("backoff_options").is_none().then(|| (at, "`backoff_options` is not set".into()))
                }
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-access-log",
            severity: Severity::Warning,
            title: "the agent does not see the sessions",
            why: "Envoy cannot list its sessions. The agent knows them only from the access log by gRPC; without it nothing \
                  is retired.",
            fix: "Add the access loggers of deploy/envoy/envoy.yaml: `envoy.access_loggers.tcp_grpc` to the agent, and \
                  a file for the time while the agent is away.",
            bad: listener!("", "", "          idle_timeout: 0s\n"),
            good: listener!(
                "",
                "",
                "          access_log:\n          - name: envoy.access_loggers.tcp_grpc\n"
            ),
        },
        check: |config, _| {
            each(config, |proxy| {
                let logs =
                    proxy.config.node.list("access_log").iter().chain(proxy.listener.node.list("access_log"));
                let mut names = logs.filter_map(|log| log.text_at(&["name"]));
                let missing = !names.any(|name| name.contains("grpc"));
                missing.then(|| (proxy.config.nearest(&["access_log"]), "no access log by gRPC".into()))
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-access-log-flush",
            severity: Severity::Warning,
            title: "the access log reports sessions only when they end",
            why: "An entry at the end is too late to retire a session. Without entries at intervals, a restarted agent does \
                  not find the sessions that began before.",
            fix: "Set `access_log_options: {flush_access_log_on_start: true, flush_access_log_on_connected: true, \
                  access_log_flush_interval: 10s}`.",
            bad: listener!("", "", "          access_log: [{name: envoy.access_loggers.tcp_grpc}]\n"),
            good: listener!(
                "",
                "",
                "          access_log: [{name: envoy.access_loggers.tcp_grpc}]\n          access_log_options: \
                 {flush_access_log_on_connected: true, access_log_flush_interval: 10s}\n"
            ),
        },
        check: |config, _| {
            each(config, |proxy| {
                let node = &proxy.config.node;
                let grpc = node
                    .list("access_log")
                    .iter()
                    .any(|log| log.text_at(&["name"]).is_some_and(|name| name.contains("grpc")));
                let option = |key: &str| node.at(&["access_log_options", key]).or_else(|| node.get(key));
                let connected = option("flush_access_log_on_connected").is_some_and(Node::is_true);
                let wrong = grpc && !(connected && option("access_log_flush_interval").is_some());
                wrong.then(|| {
                    let what = "entries when a session is connected, or at intervals, are not switched on";
                    (proxy.config.nearest(&["access_log_options"]), what.into())
                })
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-listener-keepalive",
            severity: Severity::Warning,
            title: "clients that disappeared are not noticed",
            why: "Without an idle timeout and without TCP keepalives the session of a client that disappeared stays indefinitely.",
            fix: "Set `tcp_keepalive: {keepalive_time: 60, keepalive_interval: 15, keepalive_probes: 4}` on the listener.",
            bad: listener!("", "", ""),
            good: listener!("    tcp_keepalive: {keepalive_time: 60}\n", "", ""),
        },
        check: |config, _| {
            each(config, |proxy| {
                let options = proxy.listener.node.list("socket_options").iter().any(|option| {
                    // SOL_SOCKET and SO_KEEPALIVE of Linux.
                    let is = |key: &str, number: f64| option.get(key).and_then(Node::number) == Some(number);
                    is("level", 1.0) && is("name", 9.0)
                });
                let missing = proxy.listener.node.get("tcp_keepalive").is_none() && !options;
                missing.then(|| {
                    (
                        proxy.listener.nearest(&[]),
                        format!("listener `{}` has no `tcp_keepalive`", proxy.listener.name()),
                    )
                })
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-cluster-missing",
            severity: Severity::Error,
            title: "a TCP proxy or the agent names a cluster that does not exist",
            why: "Envoy closes every connection to a cluster that it does not have. A cluster that only the agent knows \
                  gets no endpoints.",
            fix: "Use the same names in Envoy's configuration and in `clusters` of the agent's configuration.",
            bad: "static_resources:\n  clusters: [{name: orders_writer}]\n",
            good: "static_resources:\n  clusters: [{name: orders_write}]\n",
        },
        check: |config, setup| {
            let dynamic = |root: &Part| root.node.at(&["dynamic_resources", "cds_config"]).is_some();
            if config.names.is_empty() || config.bootstraps.iter().any(dynamic) {
                return Vec::new();
            }
            let mut found = Vec::new();
            for proxy in &config.proxies {
                for name in
                    targets(&proxy.config.node).into_iter().filter(|name| !config.names.contains(name))
                {
                    found.push((proxy.config.nearest(&["cluster"]), format!("there is no cluster `{name}`")));
                }
            }
            let start = config.bootstraps.first().map(|part| part.nearest(&[]));
            let known = setup.agent.iter().flat_map(|agent| agent.backends.keys());
            for name in known.filter(|name| !config.names.contains(*name)) {
                if let Some(start) = &start {
                    let what = format!("the agent's configuration has a cluster `{name}`, Envoy's has not");
                    found.push((start.clone(), what));
                }
            }
            found
        },
    },
];

fn each(config: &Config, of: impl Fn(&Proxy) -> Option<Found>) -> Vec<Found> {
    config.proxies.iter().filter_map(of).collect()
}
