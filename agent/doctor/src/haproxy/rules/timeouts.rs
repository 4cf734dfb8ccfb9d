//! Timeouts and dead peers.

use super::super::model::{Config, Proxy};
use crate::rule::{About, Found, Rule, Severity};

const MINUTE: u64 = 60_000;

/// A running statement is silent on the wire. Reports and migrations of half an hour are common.
const LONG_QUERY: u64 = 30 * MINUTE;

/// The life of an IAM token.
const TOKEN: u64 = 15 * MINUTE;

/// A failover of RDS takes seconds; a longer wait for one connection keeps a client from the next server.
const SLOW_CONNECT: u64 = 10_000;

pub(super) const RULES: &[Rule<Config>] = &[
    Rule {
        about: About {
            id: "haproxy-timeout-missing",
            severity: Severity::Warning,
            title: "a timeout is not set",
            why: "Without it HAProxy waits indefinitely: sessions of clients and servers that disappeared stay until \
                  HAProxy has no connection left.",
            fix: "Set `timeout connect`, `timeout client` and `timeout server`.",
            bad: "defaults\n    timeout connect 5s\nbackend orders_write\n    server a 10.0.0.1:5432\n",
            good: "defaults\n    timeout connect 5s\n    timeout server 1h\nbackend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            let mut found = Vec::new();
            for proxy in &config.proxies {
                let needed =
                    [("connect", proxy.backend), ("server", proxy.backend), ("client", proxy.frontend)];
                for (name, _) in
                    needed.iter().filter(|(name, here)| *here && proxy.last(&["timeout", name]).is_none())
                {
                    found.push((proxy.at.clone(), format!("`{}` has no `timeout {name}`", proxy.name)));
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "haproxy-idle-timeout-short",
            severity: Severity::Error,
            title: "an idle timeout ends running statements",
            why: "A running statement sends nothing, so it looks idle to HAProxy. The client sees its connection \
                  end, while the database works on and may still commit.",
            fix: "Set `timeout client` and `timeout server` (or `timeout tunnel`) above the longest statement, as \
                  1h, and find dead peers with `option clitcpka` and `option srvtcpka`.",
            bad: "defaults\n    timeout client 50s\n    timeout server 50s\nbackend orders_write\n    server a 10.0.0.1:5432\n",
            good: "defaults\n    timeout client 1h\n    timeout server 1h\nbackend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            idle(
                config,
                |time| time < LONG_QUERY,
                |name, time| format!("`timeout {name}` is {}: longer statements are cut", shown(time)),
            )
        },
    },
    Rule {
        about: About {
            id: "haproxy-idle-timeout-long",
            severity: Severity::Note,
            title: "idle sessions outlive the credentials that opened them",
            why: "A token lives for at most 15 minutes, and RDS does not end the sessions that it opened. An idle \
                  timeout is no age limit either: a used session never meets it.",
            fix: "Keep the long timeout, for the sake of running statements, and limit the age of sessions with \
                  `sessions: {mode: retire}` in the agent's configuration.",
            bad: "defaults\n    timeout client 3d\n    timeout server 3d\nbackend orders_write\n    server a 10.0.0.1:5432\n",
            good: "defaults\n    timeout client 15m\n    timeout server 15m\nbackend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, setup| {
            if setup.agent.as_ref().is_some_and(|agent| agent.retires) {
                return Vec::new();
            }
            idle(
                config,
                |time| time > TOKEN,
                |name, time| format!("`timeout {name}` is {}, longer than the life of a token", shown(time)),
            )
        },
    },
    Rule {
        about: About {
            id: "haproxy-connect-timeout",
            severity: Severity::Warning,
            title: "`timeout connect` is long",
            why: "It is the time between two tries at a server that does not answer: a client waits that long \
                  before it is sent to the new writer.",
            fix: "Set `timeout connect 5s`.",
            bad: "defaults\n    timeout connect 60s\nbackend orders_write\n    server a 10.0.0.1:5432\n",
            good: "defaults\n    timeout connect 5s\nbackend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            let of = |proxy: &Proxy| {
                let (time, line) = proxy.timeout("connect").filter(|(time, _)| *time > SLOW_CONNECT)?;
                Some((line.at.clone(), format!("`timeout connect` is {}", shown(time))))
            };
            config.database_backends().filter_map(of).collect()
        },
    },
    Rule {
        about: About {
            id: "haproxy-keepalive",
            severity: Severity::Warning,
            title: "dead peers are not noticed",
            why: "Without TCP keepalives a client or server that disappeared, or a NAT or load balancer that forgot \
                  the connection (AWS: after 350 s), is noticed only at the idle timeout.",
            fix: "Add `option clitcpka` and `option srvtcpka`.",
            bad: "frontend write\n    bind :5432\n    default_backend orders_write\n\
                  backend orders_write\n    option srvtcpka\n    server a 10.0.0.1:5432\n",
            good: "defaults\n    option clitcpka\n    option srvtcpka\nfrontend write\n    bind :5432\n    default_backend orders_write\n\
                   backend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            let mut found = Vec::new();
            for proxy in config.proxies.iter().filter(|proxy| proxy.option("tcpka").is_none()) {
                for (name, here) in [("clitcpka", proxy.frontend), ("srvtcpka", proxy.backend)] {
                    if here && proxy.option(name).is_none() {
                        found.push((proxy.at.clone(), format!("`{}` has no `option {name}`", proxy.name)));
                    }
                }
            }
            found
        },
    },
];

/// The idle timeouts for which `wrong` holds. `timeout tunnel` overrides the two others.
fn idle(config: &Config, wrong: fn(u64) -> bool, what: fn(&str, u64) -> String) -> Vec<Found> {
    let mut found = Vec::new();
    for proxy in &config.proxies {
        let tunnel = proxy.timeout("tunnel").is_some();
        let sides = [
            ("tunnel", proxy.backend),
            ("client", proxy.frontend && !tunnel),
            ("server", proxy.backend && !tunnel),
        ];
        for (name, _) in sides.iter().filter(|(_, here)| *here) {
            if let Some((time, line)) = proxy.timeout(name).filter(|(time, _)| wrong(*time)) {
                found.push((line.at.clone(), what(name, time)));
            }
        }
    }
    found
}

fn shown(milliseconds: u64) -> String {
    let units = [(60 * MINUTE, "h"), (MINUTE, "m"), (1000, "s"), (1, "ms")];
    let whole =
        units.into_iter().find(|(unit, _)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit));
    let (unit, name) = whole.unwrap_or((1, "ms"));
    format!("{}{name}", milliseconds / unit)
}
