//! A bootstrap, a file of dynamic resources or a config dump → listeners and clusters that lead to databases.

use std::{collections::BTreeSet, sync::Arc};

use super::tree::Node;
use crate::{position::Position, rule::Found, setup::Setup};

/// A node and its file.
#[derive(Clone, Debug)]
pub struct Part {
    pub file: Arc<str>,
    pub node: Node,
}

impl Part {
    pub fn position(&self, node: &Node) -> Position {
        Position { file: self.file.clone(), line: node.line }
    }

    /// The line of what is below a path, or of the nearest part above it.
    pub fn nearest(&self, path: &[&str]) -> Position {
        let mut node = &self.node;
        for key in path {
            match node.get(key) {
                Some(below) => node = below,
                None => break,
            }
        }
        self.position(node)
    }

    pub fn name(&self) -> &str {
        self.node.text_at(&["name"]).unwrap_or_default()
    }
}

/// A TCP proxy of a listener.
pub struct Proxy {
    pub listener: Part,
    /// Its filter chain.
    pub chain: Part,
    /// Its `typed_config`.
    pub config: Part,
    pub mysql: bool,
}

pub struct Cluster {
    pub part: Part,
    pub mysql: bool,
    /// Made of other clusters; has no endpoints of its own.
    pub aggregate: bool,
}

#[derive(Default)]
pub struct Config {
    /// Bootstraps, also those inside config dumps.
    pub bootstraps: Vec<Part>,
    pub proxies: Vec<Proxy>,
    pub clusters: Vec<Cluster>,
    /// The names of all clusters.
    pub names: BTreeSet<String>,
    pub mistakes: Vec<Found>,
}

/// The type of a message, without its package.
fn kind(node: &Node) -> &str {
    node.text_at(&["@type"]).and_then(|name| name.rsplit(['.', '/']).next()).unwrap_or_default()
}

fn is(node: &Node, name: &str) -> bool {
    kind(node) == name
}

impl Config {
    pub fn new(roots: Vec<Part>, mistakes: Vec<Found>, setup: &Setup) -> Self {
        let mut found = Self { mistakes, ..Self::default() };
        let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
        for root in roots {
            collect(&root, &mut found.bootstraps, &mut listeners, &mut clusters);
        }
        found.names = clusters.iter().map(|cluster: &Part| cluster.name().to_owned()).collect();
        let known = setup.agent.as_ref().map(|agent| &agent.backends);
        // What is known of each cluster: `Some(mysql)` if it certainly leads to a database.
        let certain = |name: &str| -> Option<bool> {
            if let Some(backend) = known.and_then(|known| known.get(name)) {
                return Some(backend.mysql);
            }
            let cluster = clusters.iter().find(|cluster| cluster.name() == name)?;
            endpoints(&cluster.node).find_map(looks)
        };
        let reach = |name: &str| reachable(&clusters, name);
        let mut databases: Vec<(String, bool)> = Vec::new();
        for listener in &listeners {
            for (chain, config) in tcp_proxies(listener) {
                let targets = targets(&config.node);
                let all: BTreeSet<String> = targets.iter().flat_map(|name| reach(name)).collect();
                let own = listener.node.at(&["address"]).and_then(looks);
                let Some(mysql) = all.iter().find_map(|name| certain(name)).or(own) else { continue };
                databases.extend(all.into_iter().map(|name| (name, mysql)));
                found.proxies.push(Proxy { listener: listener.clone(), chain, config, mysql });
            }
        }
        for part in &clusters {
            let named = databases.iter().find(|(name, _)| name == part.name()).map(|(_, mysql)| *mysql);
            if let Some(mysql) = named.or_else(|| certain(part.name())) {
                let aggregate = !members(&part.node).is_empty();
                found.clusters.push(Cluster { part: part.clone(), mysql, aggregate });
            }
        }
        found
    }

    /// The clusters that have endpoints.
    pub fn plain_clusters(&self) -> impl Iterator<Item = &Cluster> {
        self.clusters.iter().filter(|cluster| !cluster.aggregate)
    }
}

fn collect(root: &Part, bootstraps: &mut Vec<Part>, listeners: &mut Vec<Part>, clusters: &mut Vec<Part>) {
    let part = |node: &Node| Part { file: root.file.clone(), node: node.clone() };
    let resources = |node: &Node, listeners: &mut Vec<Part>, clusters: &mut Vec<Part>| {
        if let Some(fixed) = node.get("static_resources") {
            listeners.extend(fixed.list("listeners").iter().map(part));
            clusters.extend(fixed.list("clusters").iter().map(part));
        }
    };
    if root.node.get("configs").is_none() && root.node.get("resources").is_none() {
        bootstraps.push(root.clone());
        resources(&root.node, listeners, clusters);
    }
    for resource in root.node.list("resources") {
        match kind(resource) {
            "Listener" => listeners.push(part(resource)),
            "Cluster" => clusters.push(part(resource)),
            _ => {}
        }
    }
    let dumped = |name| root.node.list("configs").iter().find(move |dump| is(dump, name));
    if let Some(bootstrap) = dumped("BootstrapConfigDump").and_then(|dump| dump.get("bootstrap")) {
        bootstraps.push(part(bootstrap));
        if dumped("ListenersConfigDump").is_none() {
            resources(bootstrap, listeners, clusters);
        }
    }
    if let Some(dump) = dumped("ListenersConfigDump") {
        let fixed = dump.list("static_listeners").iter().filter_map(|one| one.get("listener"));
        let dynamic =
            dump.list("dynamic_listeners").iter().filter_map(|one| one.at(&["active_state", "listener"]));
        listeners.extend(fixed.chain(dynamic).map(part));
    }
    if let Some(dump) = dumped("ClustersConfigDump") {
        let lists = ["static_clusters", "dynamic_active_clusters"].into_iter().flat_map(|key| dump.list(key));
        clusters.extend(lists.filter_map(|one| one.get("cluster")).map(part));
    }
}

/// The filter chains of a listener that have a TCP proxy, with its configuration.
fn tcp_proxies(listener: &Part) -> Vec<(Part, Part)> {
    let part = |node: &Node| Part { file: listener.file.clone(), node: node.clone() };
    let default = listener.node.get("default_filter_chain");
    let chains = listener.node.list("filter_chains").iter().chain(default);
    let mut found = Vec::new();
    for chain in chains {
        let tcp = chain.list("filters").iter().find(|filter| {
            filter.text_at(&["name"]).is_some_and(|name| name.ends_with("tcp_proxy"))
                || filter.get("typed_config").is_some_and(|config| is(config, "TcpProxy"))
        });
        if let Some(config) = tcp.and_then(|filter| filter.get("typed_config")) {
            found.push((part(chain), part(config)));
        }
    }
    found
}

/// The clusters that a TCP proxy names.
pub fn targets(config: &Node) -> Vec<String> {
    let weighted = config.get("weighted_clusters").map_or(&[][..], |weighted| weighted.list("clusters"));
    let weighted = weighted.iter().filter_map(|cluster| cluster.text_at(&["name"]));
    config.text_at(&["cluster"]).into_iter().chain(weighted).map(str::to_owned).collect()
}

/// The clusters that an aggregate cluster consists of.
pub fn members(cluster: &Node) -> Vec<String> {
    let list =
        cluster.at(&["cluster_type", "typed_config"]).map_or(&[][..], |config| config.list("clusters"));
    list.iter().filter_map(Node::text).map(str::to_owned).collect()
}

/// A cluster and, if it is an aggregate, what it consists of.
fn reachable(clusters: &[Part], name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(name) = open.pop() {
        if found.insert(name.clone()) {
            let of_name = clusters.iter().filter(|cluster| cluster.name() == name);
            open.extend(of_name.flat_map(|cluster| members(&cluster.node)));
        }
    }
    found
}

/// The `endpoint`s of a cluster with fixed endpoints.
pub fn endpoints(cluster: &Node) -> impl Iterator<Item = &Node> {
    let localities =
        cluster.get("load_assignment").map_or(&[][..], |assignment| assignment.list("endpoints"));
    localities.iter().flat_map(|locality| locality.list("lb_endpoints")).filter_map(|one| one.get("endpoint"))
}

/// The address of an endpoint or a listener, with its port.
pub fn address(node: &Node) -> Option<(&str, u16)> {
    let socket = node.at(&["address", "socket_address"]).or_else(|| node.get("socket_address"))?;
    let port = socket.get("port_value")?.number().filter(|port| (0.0..=65535.0).contains(port))?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "in range, and a port is whole"
    )]
    Some((socket.text_at(&["address"])?, port as u16))
}

/// Whether an address looks like one of a database: `Some(mysql)`.
fn looks(node: &Node) -> Option<bool> {
    match address(node)? {
        (_, 3306..=3309) => Some(true),
        (_, 5432..=5439) => Some(false),
        (host, _) if host.contains(".rds.amazonaws.com") => Some(false),
        _ => None,
    }
}
