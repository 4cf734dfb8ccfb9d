//! What concerns the whole of Envoy.

use super::super::{model::Config, tree::Node};
use crate::rule::{About, Rule, Severity};

pub(super) const RULES: &[Rule<Config>] = &[
    Rule {
        about: About {
            id: "envoy-syntax",
            severity: Severity::Error,
            title: "the file cannot be read",
            why: "Envoy refuses to start with it.",
            fix: "Correct the line; `envoy --mode validate -c FILE` checks the whole file.",
            bad: "static_resources:\n  clusters: [\n",
            good: "static_resources:\n  clusters: []\n",
        },
        check: |config, _| config.mistakes.clone(),
    },
    Rule {
        about: About {
            id: "envoy-node-id",
            severity: Severity::Error,
            title: "Envoy has no name",
            why: "The agent tells Envoys apart by `node.id`; Envoy asks for no endpoints without one.",
            fix: "Set `node: {id: envoy-1, cluster: rds}`, another `id` for each Envoy, or `--service-node`.",
            bad: "static_resources:\n  clusters: [{name: orders_write, type: EDS}]\n",
            good: "node: {id: envoy-1, cluster: rds}\nstatic_resources:\n  clusters: [{name: orders_write, type: EDS}]\n",
        },
        check: |config, _| {
            let eds =
                config.clusters.iter().any(|cluster| cluster.part.node.text_at(&["type"]) == Some("EDS"));
            let nameless = |node: &Node| node.text_at(&["node", "id"]).is_none_or(str::is_empty);
            let roots = config.bootstraps.iter().filter(|root| eds && nameless(&root.node));
            roots.map(|root| (root.nearest(&["node"]), "`node.id` is not set".into())).collect()
        },
    },
    Rule {
        about: About {
            id: "envoy-admin-open",
            severity: Severity::Error,
            title: "others can use the admin interface",
            why: "Whoever reaches it can stop Envoy and read its configuration. It has no password.",
            fix: "Use a Unix socket: `admin: {address: {pipe: {path: /run/envoy/admin.sock, mode: 432}}}`.",
            bad: "admin: {address: {socket_address: {address: 0.0.0.0, port_value: 9901}}}\n",
            good: "admin: {address: {pipe: {path: /run/envoy/admin.sock, mode: 432}}}\n",
        },
        check: |config, _| {
            let mut found = Vec::new();
            for root in &config.bootstraps {
                let path = ["admin", "address", "socket_address", "address"];
                let Some(address) = root.node.at(&path).filter(|node| {
                    node.text()
                        .is_some_and(|host| !host.starts_with("127.") && host != "::1" && host != "localhost")
                }) else {
                    continue;
                };
                found.push((
                    root.position(address),
                    format!("the admin interface listens on {}", address.text().unwrap_or_default()),
                ));
            }
            found
        },
    },
    Rule {
        about: About {
            id: "envoy-no-connection-limit",
            severity: Severity::Note,
            title: "connections are only limited by file descriptors",
            why: "Each session takes two. At the limit Envoy can accept nothing, and its admin interface does not answer either.",
            fix: "Add the resource monitor `envoy.resource_monitors.global_downstream_max_connections`, as in \
                  deploy/envoy/envoy.yaml.",
            bad: "node: {id: envoy-1}\nstatic_resources:\n  clusters: [{name: orders_write}]\n",
            good: "node: {id: envoy-1}\nstatic_resources:\n  clusters: [{name: orders_write}]\noverload_manager:\n  \
                   resource_monitors: [{name: envoy.resource_monitors.global_downstream_max_connections}]\n",
        },
        check: |config, _| {
            let limited = |node: &Node| {
                let monitors =
                    node.get("overload_manager").map_or(&[][..], |manager| manager.list("resource_monitors"));
                monitors.iter().any(|monitor| {
                    monitor.text_at(&["name"]).is_some_and(|name| name.contains("downstream_max_connections"))
                })
            };
            let roots =
                config.bootstraps.iter().filter(|root| !config.clusters.is_empty() && !limited(&root.node));
            roots
                .map(|root| (root.nearest(&["overload_manager"]), "no limit of connections".into()))
                .collect()
        },
    },
];
