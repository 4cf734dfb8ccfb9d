//! Clusters: who gets new sessions, and how fast a change takes effect.

use super::{
    super::model::{Cluster, Config, address, endpoints},
    cluster,
};
use crate::{
    rule::{About, Found, Rule, Severity},
    tree::Node,
};

pub(super) const RULES: &[Rule<Config>] = &[
    Rule {
        about: About {
            id: "envoy-panic-threshold",
            severity: Severity::Error,
            title: "unhealthy instances get sessions",
            why: "With fewer than half of the endpoints healthy, Envoy by default ignores health. Of a writer's cluster \
                  with three instances one is healthy: two of three sessions go to readers.",
            fix: "Set `common_lb_config: {healthy_panic_threshold: {value: 0}}`.",
            bad: cluster!("    common_lb_config: {update_merge_window: 0s}\n"),
            good: cluster!("    common_lb_config: {healthy_panic_threshold: {value: 0}}\n"),
        },
        check: |config, _| {
            each(config, |cluster| {
                let threshold = cluster.part.node.at(&["common_lb_config", "healthy_panic_threshold"]);
                // A config dump leaves a zero out: `{}`.
                let zero = threshold
                    .is_some_and(|node| node.get("value").and_then(Node::number).unwrap_or(0.0) == 0.0);
                (!zero).then(|| {
                    let at = cluster.part.nearest(&["common_lb_config", "healthy_panic_threshold"]);
                    (at, format!("cluster `{}` has no panic threshold of 0", cluster.part.name()))
                })
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-merge-window",
            severity: Severity::Warning,
            title: "changes of health take effect late",
            why: "Envoy by default collects changes of endpoints for a second: for that time new sessions go on to an \
                  instance that is known to be down.",
            fix: "Set `common_lb_config: {update_merge_window: 0s}`.",
            bad: cluster!("    common_lb_config: {healthy_panic_threshold: {value: 0}}\n"),
            good: cluster!("    common_lb_config: {update_merge_window: 0s}\n"),
        },
        check: |config, _| {
            each(config, |cluster| {
                let window = cluster.part.node.at(&["common_lb_config", "update_merge_window"]);
                let zero = window.is_some_and(|node| node.seconds() == Some(0.0));
                (!zero).then(|| {
                    let at = cluster.part.nearest(&["common_lb_config", "update_merge_window"]);
                    (at, format!("cluster `{}` has no merge window of 0s", cluster.part.name()))
                })
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-close-on-failure",
            severity: Severity::Error,
            title: "a failed check closes every session",
            why: "With checks that the agent answers, the death of the agent fails every check, and this option then \
                  ends every session, within a second.",
            fix: "Remove `close_connections_on_host_health_failure`. `sessions: demotion_grace` closes the sessions of an old \
                  writer.",
            bad: cluster!("    close_connections_on_host_health_failure: true\n"),
            good: cluster!("    close_connections_on_host_health_failure: false\n"),
        },
        check: |config, _| {
            each(config, |cluster| {
                let node = cluster.part.node.get("close_connections_on_host_health_failure")?;
                node.is_true().then(|| {
                    let what = format!(
                        "cluster `{}` has `close_connections_on_host_health_failure`",
                        cluster.part.name()
                    );
                    (cluster.part.position(node), what)
                })
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-tcp-check",
            severity: Severity::Error,
            title: "Envoy itself checks a database by TCP",
            why: "An open port says nothing about logins or the role. MySQL and MariaDB count each such connection \
                  against Envoy's address and refuse all clients behind it after max_connect_errors (100): 1129.",
            fix: "Let the agent answer the checks (deploy/envoy/static-checks.yaml), or take endpoints from the agent \
                  (deploy/envoy/envoy.yaml).",
            bad: cluster!(
                "    health_checks:\n    - {interval: 1s, timeout: 1s, no_traffic_interval: 1s, tcp_health_check: {}}\n"
            ),
            good: cluster!(
                "    health_checks:\n    - {interval: 1s, timeout: 1s, no_traffic_interval: 1s, http_health_check: {path: \
                 /envoy/orders_write}}\n"
            ),
        },
        check: |config, _| {
            checks(config, |check| {
                check.get("tcp_health_check").map(|node| (node, "checks the database by TCP".into()))
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-no-traffic-interval",
            severity: Severity::Warning,
            title: "an instance without sessions is checked once a minute",
            why: "`no_traffic_interval` is 60 s by default: an unused cluster learns of a failover \
                  up to a minute late, and its first sessions go to the old writer.",
            fix: "Set `no_traffic_interval` to the `interval`, as 1s.",
            bad: cluster!(
                "    health_checks:\n    - {interval: 1s, timeout: 1s, http_health_check: {path: /envoy/orders_write}}\n"
            ),
            good: cluster!(
                "    health_checks:\n    - {interval: 1s, timeout: 1s, no_traffic_interval: 1s, http_health_check: {path: \
                 /envoy/orders_write}}\n"
            ),
        },
        check: |config, _| {
            checks(config, |check| {
                let interval = check.get("no_traffic_interval").and_then(Node::seconds).unwrap_or(60.0);
                (interval > 5.0).then(|| (check, format!("`no_traffic_interval` is {interval} s")))
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-connect-timeout",
            severity: Severity::Warning,
            title: "`connect_timeout` is long",
            why: "It is the time for which a client waits at an instance that does not answer before it is sent to another.",
            fix: "Set `connect_timeout: 5s`.",
            bad: cluster!("    connect_timeout: 60s\n"),
            good: cluster!("    connect_timeout: 5s\n"),
        },
        check: |config, _| {
            each(config, |cluster| {
                let node = cluster.part.node.get("connect_timeout")?;
                let long = node.seconds().filter(|seconds| *seconds > 10.0)?;
                Some((
                    cluster.part.position(node),
                    format!("`connect_timeout` of cluster `{}` is {long} s", cluster.part.name()),
                ))
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-dns-refresh",
            severity: Severity::Warning,
            title: "a changed address is noticed late",
            why: "RDS's names have a TTL of 5 s, and lead to another instance after a failover. Envoy goes to the old address \
                  until it asks again.",
            fix: "Leave `dns_refresh_rate` at its default of 5s.",
            bad: cluster!("    type: LOGICAL_DNS\n    dns_refresh_rate: 60s\n"),
            good: cluster!("    type: LOGICAL_DNS\n    dns_refresh_rate: 5s\n"),
        },
        check: |config, _| {
            each(config, |cluster| {
                let dns = cluster.part.node.text_at(&["type"]).is_some_and(|kind| kind.ends_with("DNS"));
                let node = cluster.part.node.get("dns_refresh_rate").filter(|_| dns)?;
                let slow = node.seconds().filter(|seconds| *seconds > 10.0)?;
                Some((
                    cluster.part.position(node),
                    format!("`dns_refresh_rate` of cluster `{}` is {slow} s", cluster.part.name()),
                ))
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-dns-type",
            severity: Severity::Warning,
            title: "a cluster endpoint of RDS is resolved as STRICT_DNS",
            why: "The name leads to one writer, or to another reader at each question. STRICT_DNS replaces the endpoint at each \
                  answer, with what was known of it.",
            fix: "Use `type: LOGICAL_DNS` for cluster endpoints.",
            bad: cluster!(
                "    type: STRICT_DNS\n    load_assignment:\n      endpoints: [{lb_endpoints: [{endpoint: {address: \
                 {socket_address: {address: orders.cluster-abc.eu-west-1.rds.amazonaws.com, port_value: 5432}}}}]}]\n"
            ),
            good: cluster!(
                "    type: LOGICAL_DNS\n    load_assignment:\n      endpoints: [{lb_endpoints: [{endpoint: {address: \
                 {socket_address: {address: orders.cluster-abc.eu-west-1.rds.amazonaws.com, port_value: 5432}}}}]}]\n"
            ),
        },
        check: |config, _| {
            each(config, |cluster| {
                let kind = cluster.part.node.get("type").filter(|kind| kind.text() == Some("STRICT_DNS"))?;
                let shared = endpoints(&cluster.part.node)
                    .filter_map(address)
                    .any(|(host, _)| host.contains(".cluster-"));
                shared.then(|| {
                    (cluster.part.position(kind), format!("cluster `{}` is STRICT_DNS", cluster.part.name()))
                })
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-address",
            severity: Severity::Error,
            title: "an endpoint's address is not that of its instance",
            why: "The agent judges the instance that `hostname` names, and Envoy sends the sessions elsewhere.",
            fix: "Write the endpoint of the instance or its present address, and the same as `connect` in the agent's \
                  configuration.",
            bad: cluster!(
                "    load_assignment:\n      endpoints:\n      - lb_endpoints:\n        - endpoint:\n            address: \
                 {socket_address: {address: 10.9.9.9, port_value: 5432}}\n            health_check_config: {hostname: a}\n"
            ),
            good: cluster!(
                "    load_assignment:\n      endpoints:\n      - lb_endpoints:\n        - endpoint:\n            address: \
                 {socket_address: {address: 10.0.0.1, port_value: 5432}}\n            health_check_config: {hostname: a}\n"
            ),
        },
        check: |config, setup| {
            let mut found = Vec::new();
            for cluster in config.plain_clusters() {
                let known = setup.agent.as_ref().and_then(|agent| agent.backends.get(cluster.part.name()));
                let Some(known) = known else { continue };
                for endpoint in endpoints(&cluster.part.node) {
                    let hostname = endpoint.text_at(&["health_check_config", "hostname"]).unwrap_or_default();
                    let Some(server) = known.servers.get(hostname) else { continue };
                    let Some((host, port)) = address(endpoint) else { continue };
                    let right = match host.parse() {
                        Ok(address) => server.addresses.is_empty() || server.addresses.contains(&address),
                        Err(_) => server.names.iter().any(|name| name.eq_ignore_ascii_case(host)),
                    };
                    if !right || port != server.port {
                        let what = format!(
                            "an endpoint is at {host}:{port}, its instance `{}` is not",
                            server.instance
                        );
                        found.push((cluster.part.position(endpoint), what));
                    }
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "envoy-circuit-breaker",
            severity: Severity::Warning,
            title: "connections are limited to 1024",
            why: "Envoy's default limit of connections of a cluster is 1024; a further session is closed at once.",
            fix: "Set `circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000}]}`, above \
                  max_connections of the database.",
            bad: cluster!("    circuit_breakers: {thresholds: [{max_connections: 500}]}\n"),
            good: cluster!("    circuit_breakers: {thresholds: [{max_connections: 100000}]}\n"),
        },
        check: |config, _| {
            each(config, |cluster| {
                let thresholds = cluster
                    .part
                    .node
                    .get("circuit_breakers")
                    .map_or(&[][..], |breakers| breakers.list("thresholds"));
                let high = |threshold: &Node| threshold.get("priority").and_then(Node::text) == Some("HIGH");
                let limit = thresholds
                    .iter()
                    .find(|threshold| !high(threshold))
                    .and_then(|threshold| threshold.get("max_connections"));
                let limit = limit.and_then(Node::number).unwrap_or(1024.0);
                (limit <= 1024.0).then(|| {
                    let what = format!("cluster `{}` takes at most {limit} connections", cluster.part.name());
                    (cluster.part.nearest(&["circuit_breakers"]), what)
                })
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-outlier-detection",
            severity: Severity::Error,
            title: "Envoy ejects instances by itself",
            why: "Outlier detection counts refused connections, as in a failover, and keeps the new writer out for 30 s and \
                  longer after it is usable.",
            fix: "Remove `outlier_detection`: the agent's logins are the check.",
            bad: cluster!("    outlier_detection: {}\n"),
            good: cluster!("    connect_timeout: 5s\n"),
        },
        check: |config, _| {
            each(config, |cluster| {
                let node = cluster.part.node.get("outlier_detection")?;
                Some((
                    cluster.part.position(node),
                    format!("cluster `{}` has `outlier_detection`", cluster.part.name()),
                ))
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-cluster-keepalive",
            severity: Severity::Warning,
            title: "servers that disappeared are not noticed",
            why: "After a failover the old writer's host may be gone without a word. Without TCP keepalives its sessions \
                  hang until the client gives up.",
            fix: "Set `upstream_connection_options: {tcp_keepalive: {keepalive_time: 60, keepalive_interval: 15, \
                  keepalive_probes: 4}}`.",
            bad: cluster!("    connect_timeout: 5s\n"),
            good: cluster!("    upstream_connection_options: {tcp_keepalive: {keepalive_time: 60}}\n"),
        },
        check: |config, _| {
            each(config, |cluster| {
                let missing =
                    cluster.part.node.at(&["upstream_connection_options", "tcp_keepalive"]).is_none();
                missing.then(|| {
                    (
                        cluster.part.nearest(&[]),
                        format!("cluster `{}` has no `tcp_keepalive`", cluster.part.name()),
                    )
                })
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-fetch-timeout",
            severity: Severity::Note,
            title: "Envoy's start waits long for the agent",
            why: "While an agent does not answer, Envoy's start waits for the endpoints for 15 s by default before it \
                  listens.",
            fix: "Set `initial_fetch_timeout: 2s` in `eds_config`, and an aggregate cluster with DNS behind it.",
            bad: cluster!(
                "    type: EDS\n    eds_cluster_config: {eds_config: {resource_api_version: V3}}\n"
            ),
            good: cluster!(
                "    type: EDS\n    eds_cluster_config: {eds_config: {resource_api_version: V3, initial_fetch_timeout: 2s}}\n"
            ),
        },
        check: |config, _| {
            each(config, |cluster| {
                let eds = cluster.part.node.at(&["eds_cluster_config", "eds_config"])?;
                let wait = eds.get("initial_fetch_timeout").and_then(Node::seconds).unwrap_or(15.0);
                (wait > 5.0).then(|| {
                    (
                        cluster.part.nearest(&["eds_cluster_config", "eds_config", "initial_fetch_timeout"]),
                        format!("cluster `{}` waits for its endpoints at the start", cluster.part.name()),
                    )
                })
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-fetch-forever",
            severity: Severity::Error,
            title: "Envoy does not start without the agent",
            why: "An `initial_fetch_timeout` of 0 s has no limit: an Envoy that starts while no agent answers never \
                  listens.",
            fix: "Set `initial_fetch_timeout: 2s` in `eds_config`, and an aggregate cluster with DNS behind it.",
            bad: cluster!(
                "    type: EDS\n    eds_cluster_config: {eds_config: {resource_api_version: V3, initial_fetch_timeout: 0s}}\n"
            ),
            good: cluster!(
                "    type: EDS\n    eds_cluster_config: {eds_config: {resource_api_version: V3, initial_fetch_timeout: 2s}}\n"
            ),
        },
        check: |config, _| {
            each(config, |cluster| {
                let path = ["eds_cluster_config", "eds_config", "initial_fetch_timeout"];
                let limit = cluster.part.node.at(&path).and_then(Node::seconds)?;
                (limit == 0.0).then(|| {
                    let what =
                        format!("cluster `{}` waits for its endpoints without a limit", cluster.part.name());
                    (cluster.part.nearest(&path), what)
                })
            })
        },
    },
    Rule {
        about: About {
            id: "envoy-removed-host",
            severity: Severity::Note,
            title: "a removed endpoint still gets sessions",
            why: "While Envoy's own check of an endpoint passes, Envoy goes on sending sessions to it after discovery has \
                  removed it.",
            fix: "Set `ignore_health_on_host_removal: true`.",
            bad: cluster!(
                "    type: EDS\n    health_checks: [{interval: 1s, no_traffic_interval: 1s, http_health_check: {path: /x}}]\n"
            ),
            good: cluster!(
                "    type: EDS\n    ignore_health_on_host_removal: true\n    health_checks: [{interval: 1s, \
                 no_traffic_interval: 1s, http_health_check: {path: /x}}]\n"
            ),
        },
        check: |config, _| {
            each(config, |cluster| {
                let node = &cluster.part.node;
                let eds = node.text_at(&["type"]) == Some("EDS") && !node.list("health_checks").is_empty();
                let wrong = eds && !node.get("ignore_health_on_host_removal").is_some_and(Node::is_true);
                wrong.then(|| {
                    (
                        cluster.part.nearest(&["health_checks"]),
                        format!("cluster `{}` has both discovery and checks", cluster.part.name()),
                    )
                })
            })
        },
    },
];

/// What a rule finds on the clusters with endpoints.
fn each(config: &Config, of: impl Fn(&Cluster) -> Option<Found>) -> Vec<Found> {
    config.plain_clusters().filter_map(of).collect()
}

/// What a rule finds on health checks, without the name of the cluster.
fn checks(config: &Config, of: impl Fn(&Node) -> Option<(&Node, String)>) -> Vec<Found> {
    let mut found = Vec::new();
    for cluster in config.plain_clusters() {
        let wrong = cluster.part.node.list("health_checks").iter().filter_map(&of);
        found.extend(wrong.map(|(node, what)| {
            (cluster.part.position(node), format!("cluster `{}`: {what}", cluster.part.name()))
        }));
    }
    found
}
