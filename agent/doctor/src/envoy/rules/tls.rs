//! What keeps a client's TLS from reaching the database untouched.

use super::{
    super::{model::Config, tree::Node},
    cluster, listener,
};
use crate::rule::{About, Rule, Severity};

pub(super) const RULES: &[Rule<Config>] = &[
    Rule {
        about: About {
            id: "envoy-tls-terminated",
            severity: Severity::Error,
            title: "Envoy ends TLS in front of a database",
            why: "The token is a password: whoever ends TLS can read it. Clients can no longer verify the certificate of \
                  RDS, and PostgreSQL and MySQL negotiate TLS inside their own protocol, which a TLS context does not \
                  speak: logins fail.",
            fix: "Remove `transport_socket` (also `transport_socket_matches`, and `terminate_ssl` of the PostgreSQL \
                  filter): a TCP proxy passes TLS through.",
            bad: cluster!(
                "    transport_socket:\n      name: envoy.transport_sockets.tls\n      typed_config: {\"@type\": \
                 type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}\n"
            ),
            good: cluster!("    connect_timeout: 5s\n"),
        },
        check: |config, _| {
            let tls = |_: &str, node: &Node| {
                let name = node.text_at(&["name"]).unwrap_or_default();
                let kind = node.text_at(&["@type"]).unwrap_or_default();
                let words = ["transport_sockets.tls", "starttls", "start_tls", "alts", "TlsContext"];
                words.iter().any(|word| name.contains(word) || kind.contains(word))
            };
            let filter = |key: &str, node: &Node| {
                (key == "terminate_ssl" && node.is_true())
                    || (matches!(key, "upstream_ssl" | "downstream_ssl") && node.text() == Some("REQUIRE"))
                    || key == "tls_context"
            };
            let mut found = Vec::new();
            for proxy in &config.proxies {
                if let Some(node) = proxy
                    .chain
                    .node
                    .find(&|key, node| key != "access_log" && (tls(key, node) || filter(key, node)))
                {
                    let what = format!("listener `{}` ends TLS", proxy.listener.name());
                    found.push((proxy.chain.position(node), what));
                }
            }
            for cluster in &config.clusters {
                let sockets = ["transport_socket", "transport_socket_matches", "tls_context"];
                let wrong = sockets.iter().find_map(|key| {
                    let node = cluster.part.node.get(key)?;
                    if *key == "tls_context" || tls("", node) {
                        Some(node)
                    } else {
                        node.find(&tls).map(|_| node)
                    }
                });
                let within = cluster
                    .part
                    .node
                    .list("transport_socket_matches")
                    .iter()
                    .find(|one| one.find(&tls).is_some());
                if let Some(node) = wrong.or(within) {
                    let what = format!("cluster `{}` begins TLS", cluster.part.name());
                    found.push((cluster.part.position(node), what));
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "envoy-tls-inspector",
            severity: Severity::Error,
            title: "a listener filter waits for the client's first bytes",
            why: "In MySQL and MariaDB the server speaks first: with `tls_inspector` every login waits for its timeout, 15 s. \
                  In PostgreSQL it sees nothing, because TLS begins after a request in the clear.",
            fix: "Remove `tls_inspector` and `http_inspector` from `listener_filters`.",
            bad: listener!("    listener_filters: [{name: envoy.filters.listener.tls_inspector}]\n", "", ""),
            good: listener!("", "", ""),
        },
        check: |config, _| {
            let mut found = Vec::new();
            for proxy in &config.proxies {
                for filter in proxy.listener.node.list("listener_filters") {
                    let name = filter.text_at(&["name"]).unwrap_or_default();
                    let kind = filter.text_at(&["typed_config", "@type"]).unwrap_or_default();
                    let waits = ["tls_inspector", "http_inspector"].iter().any(|word| name.contains(word));
                    if waits || kind.ends_with("TlsInspector") || kind.ends_with("HttpInspector") {
                        let what = format!("listener `{}` has the filter `{name}`", proxy.listener.name());
                        found.push((proxy.listener.position(filter), what));
                    }
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "envoy-proxy-protocol",
            severity: Severity::Error,
            title: "Envoy sends the PROXY protocol to a database",
            why: "RDS does not speak the PROXY protocol: its line is read as the beginning of a login, which fails.",
            fix: "Remove the transport socket `upstream_proxy_protocol`.",
            bad: cluster!("    transport_socket: {name: envoy.transport_sockets.upstream_proxy_protocol}\n"),
            good: cluster!("    connect_timeout: 5s\n"),
        },
        check: |config, _| {
            let sends = config.clusters.iter().filter_map(|cluster| {
                let socket = cluster.part.node.get("transport_socket")?;
                socket.text_at(&["name"])?.contains("proxy_protocol").then(|| {
                    let what = format!("cluster `{}` sends the PROXY protocol", cluster.part.name());
                    (cluster.part.position(socket), what)
                })
            });
            sends.collect()
        },
    },
];
