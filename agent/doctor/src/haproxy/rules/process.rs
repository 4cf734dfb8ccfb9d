//! The `global` section: sockets, reloads, the state file.

use super::super::{model::Config, words::milliseconds};
use crate::rule::{About, Found, Rule, Severity};

/// The default age limit of a session. Old workers have to live as long, so that sessions can be retired.
const SESSION: u64 = 15 * 60_000;

pub(super) const RULES: &[Rule<Config>] = &[
    Rule {
        about: About {
            id: "haproxy-stats-socket",
            severity: Severity::Error,
            title: "the agent cannot use the runtime API",
            why: "The agent lists sessions, drains and closes over the stats socket. Without one, or with a level below \
                  `admin`, it only answers checks; `level operator` is enough to observe.",
            fix: "Write `stats socket /run/haproxy/admin.sock mode 660 group haproxy level admin` in `global`.",
            bad: "global\n    stats socket /run/haproxy/admin.sock mode 660\nbackend orders_write\n    server a 10.0.0.1:5432\n",
            good: "global\n    stats socket /run/haproxy/admin.sock mode 660 level admin\nbackend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, setup| {
            if config.proxies.is_empty() {
                return Vec::new();
            }
            let sockets = || config.global.iter().filter(|line| line.begins(&["stats", "socket"]));
            let level = |words: &[String]| {
                words
                    .windows(2)
                    .any(|pair| matches!(pair, [key, level] if key == "level" && level == "admin"))
            };
            let wanted = setup.agent.as_ref().and_then(|agent| agent.stats_socket.as_deref());
            let at = config.global.first().map_or(&config.start, |line| &line.at);
            match (sockets().next(), wanted) {
                (None, _) => vec![(at.clone(), "there is no `stats socket`".into())],
                (Some(first), Some(wanted)) if !sockets().any(|line| line.word(2) == wanted) => {
                    vec![(
                        first.at.clone(),
                        format!("no `stats socket` is {wanted}, the one in the agent's configuration"),
                    )]
                }
                (Some(first), wanted) => {
                    let own = |words: &[String]| {
                        wanted.is_none_or(|wanted| words.get(2).is_some_and(|word| word == wanted))
                    };
                    if sockets().any(|line| own(&line.words) && level(&line.words)) {
                        return Vec::new();
                    }
                    let line = sockets().find(|line| own(&line.words)).unwrap_or(first);
                    vec![(line.at.clone(), format!("`stats socket {}` has no `level admin`", line.word(2)))]
                }
            }
        },
    },
    Rule {
        about: About {
            id: "haproxy-stats-socket-open",
            severity: Severity::Error,
            title: "others can use the runtime API",
            why: "Whoever can write to the stats socket with `level admin` can close every session and change every \
                  server. It has no password.",
            fix: "Use a Unix socket with `mode 660` and the agent's group.",
            bad: "global\n    stats socket ipv4@0.0.0.0:9999 level admin\nbackend orders_write\n    server a 10.0.0.1:5432\n",
            good: "global\n    stats socket /run/haproxy/admin.sock mode 660 level admin\nbackend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            let open = |words: &[String]| {
                let address = words.get(2).map_or("", String::as_str);
                let host =
                    address.rsplit_once(':').map(|(host, _)| host.rsplit('@').next().unwrap_or_default());
                let remote = host
                    .is_some_and(|host| !host.starts_with("127.") && host != "localhost" && host != "[::1]");
                let others = words.windows(2).any(|pair| {
                    matches!(pair, [key, mode] if key == "mode" && mode.ends_with(['2', '3', '6', '7']) && mode.len() >= 3)
                });
                others
                    || (remote
                        && !address.starts_with(['/', '$'])
                        && !address.starts_with("unix@")
                        && !address.starts_with("abns@"))
            };
            let sockets =
                config.global.iter().filter(|line| line.begins(&["stats", "socket"]) && open(&line.words));
            sockets
                .map(|line| (line.at.clone(), format!("`stats socket {}` is open to others", line.word(2))))
                .collect()
        },
    },
    Rule {
        about: About {
            id: "haproxy-master-socket",
            severity: Severity::Warning,
            title: "sessions of old workers are not seen",
            why: "After a reload, sessions stay in the old worker, which only the master socket reaches. The agent cannot \
                  list or retire them by their age.",
            fix: "Start HAProxy with `-W -S /run/haproxy/master.sock` and name that socket as `master` in the agent's configuration.",
            bad: "# The agent's configuration: haproxy: {socket: /run/haproxy/admin.sock}\n\
                  global\n    stats socket /run/haproxy/admin.sock level admin\nbackend orders_write\n    server a 10.0.0.1:5432\n",
            good: "# The agent's configuration: haproxy: {socket: ..., master: /run/haproxy/master.sock}\n\
                   global\n    stats socket /run/haproxy/admin.sock level admin\nbackend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, setup| match &setup.agent {
            Some(agent)
                if agent.stats_socket.is_some() && !agent.master_socket && !config.proxies.is_empty() =>
            {
                vec![(config.start.clone(), "the agent's configuration has no `master` socket".into())]
            }
            _ => Vec::new(),
        },
    },
    Rule {
        about: About {
            id: "haproxy-hard-stop",
            severity: Severity::Warning,
            title: "`hard-stop-after` cuts sessions after a reload",
            why: "A reload leaves sessions in the old worker. This ends all of them after that time, also in the middle \
                  of a transaction.",
            fix: "Remove `hard-stop-after`, or set it above the age limit of sessions (`sessions: max_age`) by far, as 1h.",
            bad: "global\n    hard-stop-after 30s\nbackend orders_write\n    server a 10.0.0.1:5432\n",
            good: "global\n    hard-stop-after 1h\nbackend orders_write\n    server a 10.0.0.1:5432\n",
        },
        check: |config, _| {
            let line = config.global(&["hard-stop-after"]);
            let short = line.filter(|line| milliseconds(line.word(1)).is_some_and(|time| time < 2 * SESSION));
            short
                .map(|line| (line.at.clone(), format!("`hard-stop-after {}`", line.word(1))))
                .into_iter()
                .collect()
        },
    },
    Rule {
        about: About {
            id: "haproxy-state-file",
            severity: Severity::Warning,
            title: "the states of servers are lost at a reload",
            why: "A reload or restart while no agent answers starts every server UP: half of the sessions of a write \
                  backend go to a reader.",
            fix: "Set `server-state-file` in `global` and `load-server-state-from-file global` in `defaults`, and the \
                  same file as `state_file` in the agent's configuration. From HAProxy 3.1 `init-state fully-down` with an \
                  HTTP check does the same.",
            bad: "defaults\n    mode tcp\nbackend orders_write\n    server a 10.0.0.1:5432\n    server b 10.0.0.2:5432\n",
            good: "global\n    server-state-file /var/lib/haproxy/server-state\ndefaults\n    load-server-state-from-file global\n\
                   backend orders_write\n    server a 10.0.0.1:5432\n    server b 10.0.0.2:5432\n",
        },
        check: state_file,
    },
];

fn state_file(config: &Config, setup: &crate::setup::Setup) -> Vec<Found> {
    let mut found = Vec::new();
    for proxy in config.database_backends() {
        let mut real = proxy.real_servers().peekable();
        let several = proxy.real_servers().count() > 1;
        let down_first =
            real.peek().is_some() && real.all(|server| server.value("init-state") == Some("fully-down"));
        if !several || down_first {
            continue;
        }
        match proxy.last(&["load-server-state-from-file"]) {
            None => found
                .push((proxy.at.clone(), format!("`{}` has no `load-server-state-from-file`", proxy.name))),
            Some(line) if line.word(1) == "none" => {
                found.push((line.at.clone(), format!("`{}` loads no state", proxy.name)));
            }
            Some(line) if line.word(1) == "global" && config.global(&["server-state-file"]).is_none() => {
                found.push((
                    line.at.clone(),
                    "`load-server-state-from-file global` without `server-state-file` in `global`".into(),
                ));
            }
            Some(_) => {}
        }
    }
    let line = config.global(&["server-state-file"]);
    let written = setup.agent.as_ref().and_then(|agent| agent.state_file.as_deref());
    if let Some((line, written)) = line.zip(written).filter(|(line, written)| line.word(1) != *written) {
        let what = format!("HAProxy reads {}, and the agent writes {written}", line.word(1));
        found.push((line.at.clone(), what));
    }
    found
}
