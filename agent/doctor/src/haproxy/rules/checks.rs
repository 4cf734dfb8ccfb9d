//! Health checks: the agent's, and HAProxy's own.

use super::super::model::{Config, Proxy, Server};
use crate::rule::{About, Found, Rule, Severity};

/// HAProxy's default of `inter`.
const INTER: u64 = 2000;

pub(super) const RULES: &[Rule<Config>] = &[
    Rule {
        about: About {
            id: "haproxy-agent-check-missing",
            severity: Severity::Error,
            title: "a server has no `agent-check`",
            why: "HAProxy alone cannot tell the writer from a reader, and a port that accepts connections says \
                  nothing about logins: sessions go to servers that refuse or cannot write.",
            fix: "Add `default-server agent-check agent-addr 127.0.0.1 agent-port 7878 agent-inter 1s` and an \
                  `agent-send` for each server.",
            bad: "backend orders_write\n    server a 10.0.0.1:5432 check\n",
            good: "backend orders_write\n    default-server agent-check agent-addr 127.0.0.1 agent-port 7878\n    \
                   server a 10.0.0.1:5432 agent-send \"orders_write/a\\n\"\n    server wait 127.0.0.1:9 backup no-agent-check\n",
        },
        check: |config, _| {
            each(config, |proxy, server| {
                let missing = !server.has("agent-check") && !proxy.http_checked(server);
                missing.then(|| {
                    (
                        server.at.clone(),
                        format!("server `{}/{}` has no `agent-check`", proxy.name, server.name),
                    )
                })
            })
        },
    },
    Rule {
        about: About {
            id: "haproxy-agent-address",
            severity: Severity::Error,
            title: "agent checks do not go to the agent",
            why: "Without `agent-addr` HAProxy asks the database server itself; at a wrong port no agent answers. A check \
                  that cannot connect is no error to HAProxy: the server keeps its state indefinitely.",
            fix: "Write `agent-addr` and `agent-port` as `listen: agent_check` in the agent's configuration, \
                  127.0.0.1 and 7878 by default.",
            bad: "backend orders_write\n    server a 10.0.0.1:5432 agent-check agent-port 7878\n",
            good: "backend orders_write\n    server a 10.0.0.1:5432 agent-check agent-addr 127.0.0.1 agent-port 7878\n",
        },
        check: |config, setup| {
            let listens = setup.agent.as_ref().map(|agent| agent.agent_check.as_str());
            let mut found = Vec::new();
            for (proxy, server) in config.servers().filter(|(_, server)| server.has("agent-check")) {
                let Some(host) = server.value("agent-addr") else {
                    let what = format!("server `{}/{}` has no `agent-addr`", proxy.name, server.name);
                    found.push((server.line_of("agent-check"), what));
                    continue;
                };
                let port = server.value("agent-port").unwrap_or_default();
                let same = |listens: &str| {
                    let host = if host == "localhost" { "127.0.0.1" } else { host };
                    listens == format!("{host}:{port}") || any_address(listens, port) || host.contains("${")
                };
                if let Some(listens) = listens.filter(|listens| !same(listens)) {
                    let what =
                        format!("agent checks go to {host}:{port}, and the agent listens on {listens}");
                    found.push((server.line_of("agent-addr"), what));
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "haproxy-agent-send",
            severity: Severity::Error,
            title: "`agent-send` does not name its server",
            why: "The agent knows from this text alone which server HAProxy asks about. It answers an unknown name \
                  neutrally, so the server stays UP whatever its role; another server's name gets that one's state.",
            fix: "Write `agent-send \"BACKEND/SERVER\\n\"` with the names of this backend and server, in double \
                  quotes: in single quotes `\\n` is no newline.",
            bad: "backend orders_write\n    default-server agent-check agent-addr 127.0.0.1 agent-port 7878\n    \
                  server a 10.0.0.1:5432 agent-send 'orders_write/a\\n'\n",
            good: "backend orders_write\n    default-server agent-check agent-addr 127.0.0.1 agent-port 7878\n    \
                   server a 10.0.0.1:5432 agent-send \"orders_write/a\\n\"\n",
        },
        check: |config, _| {
            let mut found = Vec::new();
            for (proxy, server) in config.servers().filter(|(_, server)| server.has("agent-check")) {
                let wanted = format!("{}/{}", proxy.name, server.name);
                let Some(sent) = server.value("agent-send") else {
                    let what = format!("server `{wanted}` has no `agent-send`");
                    found.push((server.at.clone(), what));
                    continue;
                };
                let line = server.line_of("agent-send");
                let name = sent.trim();
                if name != wanted && !name.contains("${") {
                    found.push((line, format!("server `{wanted}` sends `{}`", sent.escape_debug())));
                } else if !sent.ends_with(['\n', '\r']) {
                    found
                        .push((line, format!("`agent-send` of server `{wanted}` has no newline at its end")));
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "haproxy-agent-inter",
            severity: Severity::Warning,
            title: "the interval of agent checks is too long or too short",
            why: "It is how long HAProxy takes to learn of a failover, and also the time in which the agent has to \
                  answer: a later answer is dropped.",
            fix: "Set `agent-inter 1s`.",
            bad: "backend orders_write\n    default-server agent-check agent-addr 127.0.0.1 agent-port 7878 inter 30s\n    \
                  server a 10.0.0.1:5432\n",
            good: "backend orders_write\n    default-server agent-check agent-addr 127.0.0.1 agent-port 7878 inter 30s agent-inter 1s\n    \
                   server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            each(config, |proxy, server| {
                let set = if server.has("agent-inter") { "agent-inter" } else { "inter" };
                let time = server.milliseconds(set).unwrap_or(INTER);
                let wrong = server.has("agent-check") && !(100..=5000).contains(&time);
                wrong.then(|| {
                    (
                        server.line_of(set),
                        format!("agent checks of `{}/{}` are {time} ms apart", proxy.name, server.name),
                    )
                })
            })
        },
    },
    Rule {
        about: About {
            id: "haproxy-agent-default-server",
            severity: Severity::Warning,
            title: "agent settings are on the `server` line only",
            why: "In HAProxy 3.3 and 3.4 such a server has an agent health of 0: after one failed and recovered check \
                  it stays DOWN until the agent says `up` explicitly.",
            fix: "Move `agent-check`, `agent-addr`, `agent-port` and `agent-inter` to a `default-server` line.",
            bad: "backend orders_write\n    server a 10.0.0.1:5432 agent-check agent-addr 127.0.0.1 agent-port 7878\n",
            good: "backend orders_write\n    default-server agent-check agent-addr 127.0.0.1 agent-port 7878\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            let affected = config.version.is_none_or(|version| ((3, 3)..=(3, 4)).contains(&version));
            each(config, |proxy, server| {
                let wrong = affected && server.only_own("agent-check");
                wrong.then(|| {
                    (
                        server.line_of("agent-check"),
                        format!(
                            "`agent-check` of `{}/{}` is on no `default-server` line",
                            proxy.name, server.name
                        ),
                    )
                })
            })
        },
    },
    Rule {
        about: About {
            id: "haproxy-mysql-tcp-check",
            severity: Severity::Error,
            title: "HAProxy itself checks a MySQL or MariaDB server",
            why: "The server counts each connection that ends before its login against HAProxy's address. After \
                  max_connect_errors (100) in a row no client behind HAProxy can log in: 1129 \"Host is blocked\".",
            fix: "Remove `check`: the agent's login is the check, and resets the count.",
            bad: "backend mysql_write\n    server a 10.0.0.1:3306 check\n",
            good: "backend mysql_write\n    default-server agent-check agent-addr 127.0.0.1 agent-port 7878\n    server a 10.0.0.1:3306\n",
        },
        check: |config, _| {
            each(config, |proxy, server| {
                let wrong = proxy.mysql && server.has("check") && !proxy.http_checked(server);
                wrong.then(|| {
                    (server.line_of("check"), format!("server `{}/{}` has `check`", proxy.name, server.name))
                })
            })
        },
    },
    Rule {
        about: About {
            id: "haproxy-pgsql-check",
            severity: Severity::Error,
            title: "`option pgsql-check` against a database with IAM",
            why: "It says UP for a user that does not exist, and DOWN for a healthy server that refuses plaintext, as \
                  with `rds.force_ssl`. Each check writes a FATAL line to the log of the database.",
            fix: "Remove it: the agent's login over TLS is the check.",
            bad: "backend orders_write\n    option pgsql-check user haproxy\n    server a 10.0.0.1:5432 check\n",
            good: "backend orders_write\n    default-server agent-check agent-addr 127.0.0.1 agent-port 7878\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| option(config, "pgsql-check"),
    },
    Rule {
        about: About {
            id: "haproxy-mysql-check",
            severity: Severity::Error,
            title: "`option mysql-check` against a database with IAM",
            why: "It needs a user without a password; without `user` each check counts as a broken connection and \
                  blocks HAProxy's address in the end.",
            fix: "Remove it, and drop its user: the agent's login over TLS is the check.",
            bad: "backend mysql_write\n    option mysql-check user haproxy\n    server a 10.0.0.1:3306 check\n",
            good: "backend mysql_write\n    default-server agent-check agent-addr 127.0.0.1 agent-port 7878\n    server a 10.0.0.1:3306\n",
        },
        check: |config, _| option(config, "mysql-check"),
    },
    Rule {
        about: About {
            id: "haproxy-shutdown-sessions",
            severity: Severity::Error,
            title: "`on-marked-down shutdown-sessions` with checks that the agent answers",
            why: "A server that is marked down for its role, its lag or a mistake loses every session at once, also \
                  those in a transaction; with an HTTP check, the death of the agent ends all sessions.",
            fix: "Remove it. `sessions: demotion_grace` closes the sessions of an old writer after a time of your choice.",
            bad: "backend orders_write\n    default-server agent-check agent-addr 127.0.0.1 agent-port 7878 on-marked-down shutdown-sessions\n    \
                  server a 10.0.0.1:5432\n",
            good: "backend orders_write\n    default-server agent-check agent-addr 127.0.0.1 agent-port 7878\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            each(config, |proxy, server| {
                let wrong =
                    [("on-marked-down", "shutdown-sessions"), ("on-marked-up", "shutdown-backup-sessions")];
                let (keyword, value) =
                    wrong.into_iter().find(|(keyword, value)| server.value(keyword) == Some(value))?;
                Some((
                    server.line_of(keyword),
                    format!("server `{}/{}` has `{keyword} {value}`", proxy.name, server.name),
                ))
            })
        },
    },
];

/// What a rule finds on the servers that sessions go to in normal times.
fn each(config: &Config, of: impl Fn(&Proxy, &Server) -> Option<Found>) -> Vec<Found> {
    config.real_servers().filter_map(|(proxy, server)| of(proxy, server)).collect()
}

fn option(config: &Config, name: &str) -> Vec<Found> {
    let lines = config.database_backends().filter_map(|proxy| {
        Some((proxy.option(name)?.at.clone(), format!("`{}` has `option {name}`", proxy.name)))
    });
    lines.collect()
}

/// Whether the agent listens on all addresses, with this port.
fn any_address(listens: &str, port: &str) -> bool {
    listens.rsplit_once(':').is_some_and(|(host, own)| own == port && matches!(host, "0.0.0.0" | "[::]"))
}
