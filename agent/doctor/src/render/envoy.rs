//! Envoy: the parts of deploy/envoy/envoy.yaml, a listener and a cluster for each cluster of the agent.

use super::{Backend, Plan};

const RECIPE: &str = include_str!("../../../../deploy/envoy/envoy.yaml");

/// The text of the recipe from one line to another.
fn between(from: &str, to: &str) -> &'static str {
    let start = RECIPE.find(from).unwrap_or(RECIPE.len());
    let rest = RECIPE.get(start..).unwrap_or_default();
    rest.get(..rest.find(to).unwrap_or(rest.len())).unwrap_or_default()
}

/// A configuration for Envoy 1.36 and later.
pub fn envoy(plan: &Plan) -> String {
    let mut text = String::from(
        "# Rendered by `rds-lb-agent render envoy` from the agent's configuration. deploy/envoy/envoy.yaml explains it.\n\n",
    );
    text.push_str(between("node:", "  - name: write\n"));
    for (index, backend) in plan.backends.iter().enumerate() {
        // The first has the anchors of the others.
        let (listener, name, cluster) = match index {
            0 => (between("  - name: write\n", "  - name: read\n"), "write", "writer"),
            _ => (between("  - name: read\n", "\n  clusters:"), "read", "reader"),
        };
        let own = &backend.name;
        let target = if backend.cluster.is_some() { format!("{own}_or_dns") } else { own.clone() };
        let port = if index == 0 { "port_value: 5432" } else { "port_value: 5433" };
        let listener = listener
            .replace(&format!("stat_prefix: {name}\n"), &format!("stat_prefix: {own}\n"))
            .replace(&format!("name: {name}\n"), &format!("name: to_{own}\n"))
            .replace(&format!("cluster: {cluster}\n"), &format!("cluster: {target}\n"))
            .replace(port, &format!("port_value: {}", backend.port))
            .replace("address: 127.0.0.1", &format!("address: {}", plan.bind));
        text.push_str(&listener);
    }
    text.truncate(text.trim_end().len());
    text.push_str("\n\n  clusters:\n");
    for (index, backend) in plan.backends.iter().enumerate() {
        let cluster = match index {
            0 => between("  - name: orders_write\n", "  - name: orders_read\n")
                .replace("orders_write", &backend.name),
            _ => between("  - name: orders_read\n", "\n  # RDS's own").replace("orders_read", &backend.name),
        };
        text.push_str(&cluster);
    }
    for backend in &plan.backends {
        if let Some(cluster) = &backend.cluster {
            text.push_str(&dns(backend, cluster));
        }
    }
    text.push_str(between("  - name: agent\n", "\u{0}"));
    let paths =
        [("/run/envoy/admin.sock", &plan.envoy_admin), ("/var/log/envoy/database.json", &plan.access_log)];
    for (path, chosen) in paths {
        if let Some(chosen) = chosen {
            text = text.replace(path, chosen);
        }
    }
    if let Some(node) = &plan.node {
        text = text.replace("id: envoy-1", &format!("id: {node}"));
    }
    text.replace("/run/rds-lb-agent/envoy.sock", &plan.envoy_socket)
}

/// The endpoint of the cluster by DNS, and the cluster of the listener, which prefers the agent's endpoints.
fn dns(backend: &Backend, (host, port): &(String, u16)) -> String {
    let by_dns = between("  - name: orders_read_dns\n", "\n  # The clusters of the listeners");
    let both = between("  - name: reader\n", "\n  - name: agent\n");
    format!("{by_dns}{both}\n")
        .replace("orders.cluster-ro-abc.eu-west-1.rds.amazonaws.com", host)
        .replace("port_value: 5432", &format!("port_value: {port}"))
        .replace("orders_read_dns", &format!("{}_dns", backend.name))
        .replace("[orders_read,", &format!("[{},", backend.name))
        .replace("name: reader", &format!("name: {}_or_dns", backend.name))
}
