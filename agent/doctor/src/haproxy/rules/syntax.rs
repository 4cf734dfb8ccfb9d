//! What HAProxy refuses, or what leads nowhere.

use super::super::model::Config;
use crate::rule::{About, Rule, Severity};

pub(super) const RULES: &[Rule<Config>] = &[
    Rule {
        about: About {
            id: "haproxy-syntax",
            severity: Severity::Error,
            title: "a line cannot be read",
            why: "HAProxy refuses to start or to reload with this file.",
            fix: "Correct the line; `haproxy -c -f FILE` checks the whole file.",
            bad: "backend orders_write\n    server a 10.0.0.1:5432 agent-send \"orders_write/a\\n\n",
            good: "backend orders_write\n    server a 10.0.0.1:5432 agent-send \"orders_write/a\\n\"\n",
        },
        check: |config, _| config.mistakes.clone(),
    },
    Rule {
        about: About {
            id: "haproxy-backend-missing",
            severity: Severity::Error,
            title: "a frontend or the agent names a backend that the files do not have",
            why: "HAProxy refuses a frontend without its backend. A backend that only the agent knows gets no \
                  answers: its servers are not protected.",
            fix: "Use the same names in haproxy.cfg and in `backends` of the agent's configuration.",
            bad: "frontend write\n    bind :5432\n    default_backend orders_writer\n\
                  backend orders_write\n    server a 10.0.0.1:5432\n",
            good: "frontend write\n    bind :5432\n    default_backend orders_write\n\
                   backend orders_write\n    server a 10.0.0.1:5432\n\
                   backend orders_read\n    server a 10.0.0.1:5432\n",
        },
        check: |config, setup| {
            let missing = |name: &str| !config.backends.iter().any(|backend| backend == name);
            let lines = config
                .targets
                .iter()
                .filter(|line| missing(line.word(1)) && !line.word(1).contains(['%', '$']));
            let mut found: Vec<_> = lines
                .map(|line| (line.at.clone(), format!("there is no backend `{}`", line.word(1))))
                .collect();
            let known = setup.agent.iter().flat_map(|agent| agent.backends.keys());
            found.extend(known.filter(|name| missing(name)).map(|name| {
                (
                    config.start.clone(),
                    format!("the agent's configuration has a backend `{name}`, this one has not"),
                )
            }));
            found
        },
    },
    Rule {
        about: About {
            id: "haproxy-server-names",
            severity: Severity::Error,
            title: "the servers of a backend are not those of the agent's configuration",
            why: "The agent answers for a server by its name. A server that it does not know gets neutral answers \
                  and stays UP whatever its role; one that only the agent knows is never asked for.",
            fix: "Name the same servers in the backend and in `servers` of the agent's configuration.",
            bad: "backend orders_write\n    server a 10.0.0.1:5432\n    server c 10.0.0.3:5432\n",
            good: "backend orders_write\n    server a 10.0.0.1:5432\n    server b 10.0.0.2:5432\n",
        },
        check: |config, setup| {
            let Some(agent) = &setup.agent else { return Vec::new() };
            let mut found = Vec::new();
            for proxy in config.database_backends() {
                let Some(known) = agent.backends.get(&proxy.name) else { continue };
                for server in proxy.real_servers().filter(|server| !known.servers.contains_key(&server.name))
                {
                    let what =
                        format!("the agent's configuration has no server `{}/{}`", proxy.name, server.name);
                    found.push((server.at.clone(), what));
                }
                let here = |name: &&String| proxy.servers.iter().any(|server| server.name == **name);
                for name in known.servers.keys().filter(|name| !here(name)) {
                    let what = format!(
                        "the agent's configuration has a server `{}/{name}`, this backend has not",
                        proxy.name
                    );
                    found.push((proxy.at.clone(), what));
                }
            }
            found
        },
    },
];
