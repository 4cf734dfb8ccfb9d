//! HAProxy: `global` and `defaults` as in deploy/haproxy/haproxy.cfg, and a frontend and a backend for each backend.

use std::fmt::Write;

use super::{Backend, Plan, address, is_name};

const RECIPE: &str = include_str!("../../../../deploy/haproxy/haproxy.cfg");

/// What the recipe has before its first frontend, without its head and its commented `resolvers`.
fn preamble() -> String {
    let start = RECIPE.find("global\n").unwrap_or(0);
    let end = RECIPE.find("# resolvers vpc").unwrap_or(RECIPE.len());
    RECIPE.get(start..end).unwrap_or_default().to_owned()
}

/// Without the lines of the log and their comment: the agent does not receive it.
fn without_log(text: &str) -> String {
    let of_log = |line: &&str| {
        let line = line.trim_start();
        ["log ", "log-format ", "# A line for each session that ends", "# docs/HANDOFFS.md"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    text.lines().filter(|line| !of_log(line)).fold(String::new(), |text, line| text + line + "\n")
}

const RESOLVERS: &str = "\
# RDS's names have a TTL of 5 s. Keep the last answer while the name server fails.
resolvers vpc
    parse-resolv-conf
    resolve_retries 3
    timeout resolve 1s
    timeout retry 1s
    hold valid 1s
    hold other 1h
    hold refused 1h
    hold nx 1h
    hold timeout 1h
    hold obsolete 5s

";

const BY_NAME: &str = " resolvers vpc resolve-prefer ipv4 init-addr none";

/// A configuration for HAProxy 2.6 and later.
pub fn haproxy(plan: &Plan) -> String {
    let mut text = String::from(
        "# Rendered by `rds-lb-agent render haproxy` from the agent's configuration. deploy/haproxy/haproxy.cfg explains it.\n\n",
    );
    let mut global = preamble();
    if let Some(socket) = &plan.stats_socket {
        global = global.replace("/run/haproxy/admin.sock", socket);
    }
    if let Some(file) = &plan.state_file {
        global = global.replace("/var/lib/haproxy/server-state", file);
    }
    global = match &plan.log {
        Some(address) => global.replace("log 127.0.0.1:7881 ", &format!("log {address} ")),
        None => without_log(&global),
    };
    text.push_str(&global);
    let named = |backend: &Backend| backend.servers.iter().any(|server| is_name(&server.connect.0));
    if plan.backends.iter().any(|backend| named(backend) || backend.cluster.is_some()) {
        text.push_str(RESOLVERS);
    }
    for backend in &plan.backends {
        // Writing to a String cannot fail.
        let _ = section(&mut text, plan, backend);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn section(text: &mut String, plan: &Plan, backend: &Backend) -> std::fmt::Result {
    let Backend { name, writer, port, servers, cluster, .. } = backend;
    let (host, check) = &plan.agent_check;
    writeln!(
        text,
        "frontend to_{name}\n    bind {}\n    default_backend {name}\n",
        address(&plan.bind, *port)
    )?;
    writeln!(text, "backend {name}")?;
    if !writer {
        writeln!(text, "    balance leastconn")?;
    }
    writeln!(text, "    default-server agent-check agent-addr {host} agent-port {check} agent-inter 1s")?;
    for server in servers {
        let (host, port) = &server.connect;
        let by_name = if is_name(host) { BY_NAME } else { "" };
        writeln!(
            text,
            "    server {server} {}{by_name} agent-send \"{name}/{server}\\n\"",
            address(host, *port),
            server = server.name,
        )?;
    }
    // HAProxy uses the first usable backup only: clients follow DNS while no server above is up.
    if let Some((host, port)) = cluster {
        writeln!(text, "    server cluster {} backup no-agent-check{BY_NAME}", address(host, *port))?;
    }
    // Nothing listens there: clients wait for the next server.
    writeln!(text, "    server wait 127.0.0.1:9 backup no-agent-check\n")
}
