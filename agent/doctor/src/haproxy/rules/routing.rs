//! Where sessions go, and what happens while no server is usable.

use std::net::IpAddr;

use super::super::{
    model::{Config, Proxy, Server},
    words::milliseconds,
};
use crate::rule::{About, Rule, Severity};

/// RDS's names have a TTL of 5 s. HAProxy's own default of `hold valid` is 10 s.
const LONGEST_HOLD: u64 = 10_000;

pub(super) const RULES: &[Rule<Config>] = &[
    Rule {
        about: About {
            id: "haproxy-retries",
            severity: Severity::Warning,
            title: "a refused connection is tried too few times",
            why: "Tries at the same server are one second apart. The default of 3 is over before a writer is promoted, and \
                  the client gets an error.",
            fix: "Set `retries 10`: clients wait up to 10 s during a failover.",
            bad: "defaults\n    retries 2\nbackend orders_write\n    server a 10.0.0.1:5432\n",
            good: "defaults\n    retries 10\nbackend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            let of = |proxy: &Proxy| {
                let line = proxy.last(&["retries"]);
                let at = line.map_or(&proxy.at, |line| &line.at).clone();
                match line.map(|line| line.word(1).parse::<u32>()) {
                    None => Some((at, format!("`{}` has no `retries`", proxy.name))),
                    Some(Ok(tries @ 0..5)) => Some((at, format!("`retries {tries}`"))),
                    Some(_) => None,
                }
            };
            config.database_backends().filter_map(of).collect()
        },
    },
    Rule {
        about: About {
            id: "haproxy-redispatch",
            severity: Severity::Warning,
            title: "a refused connection is not tried on another server",
            why: "By default only the last try goes to another server: a client waits at a server that refuses while \
                  another one is usable.",
            fix: "Set `option redispatch 1`.",
            bad: "defaults\n    retries 10\n    option redispatch\nbackend orders_write\n    server a 10.0.0.1:5432\n    server b 10.0.0.2:5432\n",
            good: "defaults\n    retries 10\n    option redispatch 1\nbackend orders_write\n    server a 10.0.0.1:5432\n    server b 10.0.0.2:5432\n",
        },
        check: |config, _| {
            let several = config.database_backends().filter(|proxy| proxy.servers.len() > 1);
            let of = |proxy: &Proxy| match proxy.option("redispatch") {
                None => Some((proxy.at.clone(), format!("`{}` has no `option redispatch 1`", proxy.name))),
                Some(line) if line.word(2) == "1" => None,
                Some(line) => Some((
                    line.at.clone(),
                    "`option redispatch` without `1`: only the last try goes elsewhere".into(),
                )),
            };
            several.filter_map(of).collect()
        },
    },
    Rule {
        about: About {
            id: "haproxy-no-fallback",
            severity: Severity::Warning,
            title: "a backend has nothing for the time when no server is usable",
            why: "A backend without a usable server closes new clients at once. With a backup where nothing listens \
                  they wait for the next writer instead: 0 of 35 clients failed in a failover of 3 s.",
            fix: "End the backend with `server wait 127.0.0.1:9 backup no-agent-check`.",
            bad: "backend orders_write\n    server a 10.0.0.1:5432\n    server b 10.0.0.2:5432\n",
            good: "backend orders_write\n    server a 10.0.0.1:5432\n    server b 10.0.0.2:5432\n    server wait 127.0.0.1:9 backup no-agent-check\n",
        },
        check: |config, _| {
            let without =
                config.database_backends().filter(|proxy| !proxy.servers.iter().any(Server::backup));
            without
                .map(|proxy| (proxy.at.clone(), format!("`{}` has no backup server", proxy.name)))
                .collect()
        },
    },
    Rule {
        about: About {
            id: "haproxy-address",
            severity: Severity::Error,
            title: "a server's address is not that of its instance",
            why: "The agent judges the instance, and HAProxy sends the sessions elsewhere: to another instance, which \
                  may be a reader, or to an address that RDS no longer uses for it.",
            fix: "Write the endpoint of the instance, with `resolvers`, or its present address; and the same as \
                  `connect` in the agent's configuration.",
            bad: "backend orders_write\n    server a 10.9.9.9:5432\n    server b 10.0.0.2:5432\n",
            good: "backend orders_write\n    server a 10.0.0.1:5432\n    server b orders-b.abc.eu-west-1.rds.amazonaws.com:5432\n",
        },
        check: |config, setup| {
            let Some(agent) = &setup.agent else { return Vec::new() };
            let mut found = Vec::new();
            for (proxy, server) in config.real_servers() {
                let known =
                    agent.backends.get(&proxy.name).and_then(|backend| backend.servers.get(&server.name));
                let Some(known) = known else { continue };
                let address: Option<IpAddr> = server.host.parse().ok();
                let right = match address {
                    Some(address) => known.addresses.is_empty() || known.addresses.contains(&address),
                    None if server.named() => known.names.contains(&server.host),
                    None => true,
                };
                let port = server.port.is_none_or(|port| port == known.port);
                if !right || !port {
                    let shown = server.port.map_or_else(String::new, |port| format!(":{port}"));
                    let what = format!(
                        "server `{}/{}` is at {}{shown}, its instance `{}` is not",
                        proxy.name, server.name, server.host, known.instance
                    );
                    found.push((server.at.clone(), what));
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "haproxy-cluster-endpoint",
            severity: Severity::Error,
            title: "a server that the agent judges is an endpoint of a cluster or of RDS Proxy",
            why: "Such a name leads to another instance after a failover: the agent's verdict on one instance \
                  then applies to the sessions of another.",
            fix: "Name each instance by its own endpoint. A cluster endpoint can only be a `backup` with `no-agent-check`.",
            bad: "backend orders_write\n    server a orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432\n",
            good: "backend orders_write\n    server a orders-a.abc.eu-west-1.rds.amazonaws.com:5432\n",
        },
        check: |config, _| {
            let shared = |host: &str| host.contains(".cluster-") || host.contains(".proxy-");
            let of_cluster = config.real_servers().filter(|(_, server)| shared(&server.host));
            of_cluster
                .map(|(proxy, server)| {
                    (server.at.clone(), format!("server `{}/{}` is {}", proxy.name, server.name, server.host))
                })
                .collect()
        },
    },
    Rule {
        about: About {
            id: "haproxy-server-out",
            severity: Severity::Warning,
            title: "a server is configured without new sessions",
            why: "With weight 0 or `disabled` a server is in the file but gets no sessions, also when it is the only \
                  writer: all sessions fail while it looks UP.",
            fix: "Remove `weight 0` or `disabled`. `rds-lb-agent drain` takes a server out for maintenance.",
            bad: "backend orders_write\n    server a 10.0.0.1:5432 weight 0\n",
            good: "backend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            let mut found = Vec::new();
            for (proxy, server) in config.real_servers() {
                let weightless = server.value("weight").is_some_and(|weight| weight == "0");
                for (setting, _) in [("weight", weightless), ("disabled", server.has("disabled"))]
                    .iter()
                    .filter(|(_, out)| *out)
                {
                    let what =
                        format!("server `{}/{}` gets no sessions (`{setting}`)", proxy.name, server.name);
                    found.push((server.line_of(setting), what));
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "haproxy-resolvers-missing",
            severity: Severity::Error,
            title: "a server is a name without `resolvers`",
            why: "HAProxy then resolves the name once, at its start. RDS gives an endpoint a new address in a failover \
                  and in maintenance; sessions go to the old one until HAProxy is reloaded.",
            fix: "Add a `resolvers` section with `parse-resolv-conf` and name it on the server.",
            bad: "backend orders_write\n    server a orders-a.abc.eu-west-1.rds.amazonaws.com:5432\n",
            good: "resolvers vpc\n    parse-resolv-conf\nbackend orders_write\n    \
                   server a orders-a.abc.eu-west-1.rds.amazonaws.com:5432 resolvers vpc init-addr none\n",
        },
        check: |config, _| {
            let without = config.servers().filter(|(_, server)| {
                server.named() && server.host != "localhost" && !server.has("resolvers")
            });
            without
                .map(|(proxy, server)| {
                    (
                        server.at.clone(),
                        format!("server `{}/{}` is a name without `resolvers`", proxy.name, server.name),
                    )
                })
                .collect()
        },
    },
    Rule {
        about: About {
            id: "haproxy-resolvers-wrong",
            severity: Severity::Warning,
            title: "`resolvers` is incomplete or remembers too long",
            why: "Without a name server nothing is resolved. A long `hold valid` sends sessions to the old address for \
                  that long after RDS has changed it.",
            fix: "Use `parse-resolv-conf` (or `nameserver`) and `hold valid 1s` to 10s.",
            bad: "resolvers vpc\n    parse-resolv-conf\n    hold valid 5m\nbackend orders_write\n    \
                  server a orders-a.abc.eu-west-1.rds.amazonaws.com:5432 resolvers vpc\n",
            good: "resolvers vpc\n    parse-resolv-conf\n    hold valid 5s\nbackend orders_write\n    \
                   server a orders-a.abc.eu-west-1.rds.amazonaws.com:5432 resolvers vpc\n",
        },
        check: |config, _| {
            let mut found = Vec::new();
            for (proxy, server) in config.servers() {
                let Some(name) = server.value("resolvers") else { continue };
                let Some(section) = config.resolvers.iter().find(|section| section.name == name) else {
                    let what = format!(
                        "server `{}/{}` names `resolvers {name}`, which is missing",
                        proxy.name, server.name
                    );
                    found.push((server.line_of("resolvers"), what));
                    continue;
                };
                if !section
                    .lines
                    .iter()
                    .any(|line| matches!(line.word(0), "nameserver" | "parse-resolv-conf"))
                {
                    found.push((section.at.clone(), format!("`resolvers {name}` has no name server")));
                }
                let hold = section.lines.iter().rev().find(|line| line.begins(&["hold", "valid"]));
                if let Some(line) =
                    hold.filter(|line| milliseconds(line.word(2)).is_some_and(|time| time > LONGEST_HOLD))
                {
                    found.push((line.at.clone(), format!("`hold valid {}`", line.word(2))));
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "haproxy-init-addr",
            severity: Severity::Warning,
            title: "HAProxy does not start while a name cannot be resolved",
            why: "By default a name has to be resolved at the start. After a reboot, or while DNS fails, HAProxy \
                  refuses to start, with all its other servers.",
            fix: "Add `init-addr none`, or `init-addr last,libc,none`, to the server or to `default-server`.",
            bad: "backend orders_write\n    server a orders-a.abc.eu-west-1.rds.amazonaws.com:5432 resolvers vpc\n",
            good: "backend orders_write\n    server a orders-a.abc.eu-west-1.rds.amazonaws.com:5432 resolvers vpc init-addr last,libc,none\n",
        },
        check: |config, _| {
            let strict = config.servers().filter(|(_, server)| {
                let last = server.value("init-addr").and_then(|methods| methods.split(',').next_back());
                let survives =
                    last.is_some_and(|method| method == "none" || method.parse::<IpAddr>().is_ok());
                server.named() && server.host != "localhost" && !survives
            });
            strict
                .map(|(proxy, server)| {
                    (
                        server.at.clone(),
                        format!(
                            "server `{}/{}` has no `init-addr` that ends with `none`",
                            proxy.name, server.name
                        ),
                    )
                })
                .collect()
        },
    },
];
