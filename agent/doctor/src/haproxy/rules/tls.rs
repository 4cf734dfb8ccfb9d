//! What keeps a client's TLS from reaching the database untouched.

use super::super::model::Config;
use crate::rule::{About, Rule, Severity};

pub(super) const RULES: &[Rule<Config>] = &[
    Rule {
        about: About {
            id: "haproxy-tls-terminated",
            severity: Severity::Error,
            title: "HAProxy ends TLS in front of a database",
            why: "The token is a password: whoever ends TLS can read it. Clients can no longer verify the \
                  certificate of RDS, and PostgreSQL and MySQL negotiate TLS inside their own protocol, which \
                  `ssl` does not speak: logins fail.",
            fix: "Remove `ssl`, `crt` and what belongs to them from `bind` and `server`: `mode tcp` passes TLS through.",
            bad: "frontend write\n    bind :5432 ssl crt /etc/haproxy/db.pem\n    default_backend orders_write\n\
                  backend orders_write\n    server a 10.0.0.1:5432 ssl verify none\n",
            good: "frontend write\n    bind :5432\n    default_backend orders_write\n\
                   backend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            let binds = config
                .frontends()
                .flat_map(|proxy| &proxy.lines)
                .filter(|line| line.begins(&["bind"]) && line.words.iter().skip(2).any(|word| word == "ssl"));
            let mut found: Vec<_> =
                binds.map(|line| (line.at.clone(), format!("`bind {}` has `ssl`", line.word(1)))).collect();
            found.extend(config.servers().filter(|(_, server)| server.has("ssl")).map(|(proxy, server)| {
                (server.line_of("ssl"), format!("server `{}/{}` has `ssl`", proxy.name, server.name))
            }));
            found
        },
    },
    Rule {
        about: About {
            id: "haproxy-mode-http",
            severity: Severity::Error,
            title: "a proxy of a database is in `mode http`",
            why: "HAProxy waits for an HTTP request and answers a database client with 400.",
            fix: "Write `mode tcp`, in the proxy or in its `defaults`.",
            bad: "defaults\n    mode http\nbackend orders_write\n    server a 10.0.0.1:5432\n",
            good: "defaults\n    mode tcp\nbackend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            let lines = config.proxies.iter().filter_map(|proxy| {
                let line = proxy.last(&["mode"]).filter(|line| line.word(1) == "http")?;
                Some((line.at.clone(), format!("`{}` is in `mode http`", proxy.name)))
            });
            lines.collect()
        },
    },
    Rule {
        about: About {
            id: "haproxy-send-proxy",
            severity: Severity::Error,
            title: "HAProxy sends the PROXY protocol to a database",
            why: "RDS does not speak the PROXY protocol: its line is read as the beginning of a login, which fails.",
            fix: "Remove `send-proxy` and its variants.",
            bad: "backend orders_write\n    server a 10.0.0.1:5432 send-proxy-v2\n",
            good: "backend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            let mut found = Vec::new();
            for (proxy, server) in config.servers() {
                let sends = ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn"];
                if let Some(keyword) = sends.into_iter().find(|keyword| server.has(keyword)) {
                    let what = format!("server `{}/{}` has `{keyword}`", proxy.name, server.name);
                    found.push((server.line_of(keyword), what));
                }
            }
            found
        },
    },
    Rule {
        about: About {
            id: "haproxy-inspect-mysql",
            severity: Severity::Error,
            title: "HAProxy waits for the client's first bytes in front of MySQL or MariaDB",
            why: "There the server speaks first. The client sends nothing before that, so every login waits until \
                  `inspect-delay` is over.",
            fix: "Remove `tcp-request inspect-delay` and the rules that read the content.",
            bad: "frontend write\n    bind :3306\n    tcp-request inspect-delay 5s\n    \
                  tcp-request content accept if { req.ssl_hello_type 1 }\n    default_backend mysql_write\n\
                  backend mysql_write\n    server a 10.0.0.1:3306\n",
            good: "frontend write\n    bind :3306\n    default_backend mysql_write\n\
                   backend mysql_write\n    server a 10.0.0.1:3306\n",
        },
        check: |config, _| {
            let fronts = config.frontends().filter(|proxy| proxy.mysql);
            let lines = fronts.filter_map(|proxy| proxy.last(&["tcp-request", "inspect-delay"]));
            lines
                .map(|line| {
                    (
                        line.at.clone(),
                        "`inspect-delay` before a protocol in which the server speaks first".into(),
                    )
                })
                .collect()
        },
    },
];
