//! Proxies, their backends, and which of their servers is which instance.

use std::collections::BTreeSet;

use agent_core::{
    InstanceId, ProxyIndex, ServerId,
    health::{ServerConfig, WantedRole},
    plan::{CloseVia, Mode, Policy},
};

use super::{
    super::{
        Address, Envoy, Haproxy, LogAddress, Problem, Proxy, ProxyKind,
        file::{self, At},
        problem::suggest,
    },
    Check,
};

impl Check {
    pub(super) fn proxy(
        &mut self,
        index: ProxyIndex,
        at: &At<file::Proxy>,
        file: &file::File,
    ) -> Option<Proxy> {
        let proxy = at.value();
        let mut servers = Vec::new();
        for (name, backend) in proxy.backends.iter().flatten() {
            self.backend(index, name, backend, file, &mut servers);
        }
        for (name, cluster) in proxy.clusters.iter().flatten() {
            self.cluster(index, name, cluster, file, &mut servers);
        }
        let kind = match (&proxy.haproxy, &proxy.backends, &proxy.envoy, &proxy.clusters) {
            (Some(haproxy), Some(_), None, None) => ProxyKind::Haproxy(self.haproxy(haproxy, file)?),
            (None, None, Some(envoy), Some(_)) => ProxyKind::Envoy(self.envoy(envoy)?),
            _ => {
                let both = proxy.haproxy.is_some() && proxy.envoy.is_some();
                let (text, hint) = if both {
                    ("this is both a HAProxy and an Envoy", "write them as two items of `proxies`")
                } else {
                    (
                        "this is neither a HAProxy nor an Envoy",
                        "write `haproxy` and `backends`, or `envoy` and `clusters`",
                    )
                };
                self.problem(Problem::at(at.location(), text).hint(hint));
                return None;
            }
        };
        Some(Proxy { kind, servers })
    }

    fn haproxy(&mut self, file: &file::Haproxy, whole: &file::File) -> Option<Haproxy> {
        let socket = self.socket(&file.socket);
        let master = file.master.as_ref().map(|master| self.socket(master));
        let state_file =
            file.state_file.as_ref().map(|path| self.path(Some(path), "/var/lib/haproxy/server-state"));
        let remote = whole.listen.allow_remote.unwrap_or(false);
        let log = file.log.as_ref().map(|log| self.log_address(log, remote));
        Some(Haproxy {
            socket: socket?,
            master: master.map_or(Some(None), |master| master.map(Some))?,
            state_file: state_file.map_or(Some(None), |path| path.map(Some))?,
            follow_addresses: file.follow_addresses.unwrap_or(true),
            log: log.map_or(Some(None), |log| log.map(Some))?,
        })
    }

    fn envoy(&mut self, file: &file::Envoy) -> Option<Envoy> {
        let admin = file.admin.as_ref().map(|admin| self.unix_or_tcp(admin));
        let access_log =
            file.access_log.as_ref().map(|path| self.path(Some(path), "/var/log/envoy/database.json"));
        Some(Envoy {
            node: file.node.as_ref().map(|node| node.value().clone()),
            admin: admin.map_or(Some(None), |admin| admin.map(Some))?,
            access_log: access_log.map_or(Some(None), |path| path.map(Some))?,
        })
    }

    /// Access logs and endpoint streams identify their Envoy by `node.id` alone.
    pub(super) fn distinct_nodes(&mut self, file: &file::File) {
        let envoys: Vec<(&At<file::Proxy>, Option<&At<String>>)> = file
            .proxies
            .iter()
            .filter_map(|at| at.value().envoy.as_ref().map(|envoy| (at, envoy.node.as_ref())))
            .collect();
        self.distinct(envoys.iter().filter_map(|(_, node)| *node), "node");
        for (at, _) in envoys.iter().filter(|(_, node)| node.is_none() && envoys.len() > 1) {
            let hint = "write the `node.id` of each Envoy in `envoy: {node: ...}`";
            self.problem(
                Problem::at(at.location(), "this is one of several Envoys and has no `node`").hint(hint),
            );
        }
    }

    /// Envoy accepts endpoints from the agent and nothing else: it cannot close single sessions, and it
    /// keeps its last endpoints when the agent dies.
    pub(super) fn possible_with_envoy(&mut self, file: &file::File, policy: &Policy) {
        let Some(at) = file.proxies.iter().find(|at| at.value().envoy.is_some()) else { return };
        let cannot = [
            (
                policy.mode == Mode::Drain,
                "mode: drain",
                "Envoy would keep a drain if the agent died; use `retire`",
            ),
            (
                policy.close_via == CloseVia::Proxy,
                "close_via: proxy",
                "Envoy cannot close single sessions; use `close_via: database`",
            ),
        ];
        for (_, what, hint) in cannot.into_iter().filter(|(given, ..)| *given) {
            self.problem(
                Problem::at(at.location(), format!("`{what}` is not possible with Envoy")).hint(hint),
            );
        }
        if policy.force_after.is_some() || policy.demotion_grace.is_some() {
            let message = "`force_after` and `demotion_grace` close nothing that is busy behind an Envoy";
            let hint = "Envoy cannot close single sessions: those in a transaction are held and reported";
            self.warnings.push(Problem::at(at.location(), message).hint(hint));
        }
    }

    fn cluster(
        &mut self,
        proxy: ProxyIndex,
        name: &str,
        cluster: &file::Cluster,
        file: &file::File,
        servers: &mut Vec<ServerConfig>,
    ) {
        self.cluster_name(name, &cluster.database);
        let Some(database) = self.database_of("cluster", name, &cluster.database, file) else { return };
        let instances = match &cluster.instances {
            None => database.instances.value().iter().map(|one| &one.name).collect(),
            Some(at) => {
                if at.value().is_empty() {
                    let message = format!("cluster `{name}` has no instances");
                    let hint = "name some, or leave `instances` out for all of the database";
                    self.problem(Problem::at(at.location(), message).hint(hint));
                }
                self.distinct(at.value().iter(), "instance");
                at.value().iter().collect::<Vec<_>>()
            }
        };
        for instance in instances {
            let known = self.known_instance(&format!("cluster `{name}`"), instance, database);
            if known {
                let names = (proxy, name, instance.value().as_str());
                let mut server = server_config(names, database, instance, cluster.role, false);
                if is_server_of_haproxy(file, name, instance.value()) {
                    server.id = server.id.ambiguous();
                }
                servers.push(server);
            }
        }
    }

    fn backend(
        &mut self,
        proxy: ProxyIndex,
        name: &str,
        backend: &file::Backend,
        file: &file::File,
        servers: &mut Vec<ServerConfig>,
    ) {
        self.proxy_name(name, "backend", &backend.database);
        let Some(database) = self.database_of("backend", name, &backend.database, file) else { return };
        if backend.servers.value().is_empty() {
            let hint = "map each of HAProxy's servers to an instance";
            self.problem(
                Problem::at(backend.servers.location(), format!("backend `{name}` has no servers"))
                    .hint(hint),
            );
        }
        let mut seen = BTreeSet::new();
        for (server, instance) in backend.servers.value() {
            self.proxy_name(server, "server", instance);
            if !seen.insert(instance.value()) {
                let message = format!("backend `{name}` has instance `{}` twice", instance.value());
                let hint = "one of them would count as a second usable server that is not there";
                self.problem(Problem::at(instance.location(), message).hint(hint));
            }
            if self.known_instance(&format!("server `{server}`"), instance, database) {
                servers.push(server_config((proxy, name, server), database, instance, backend.role, true));
            }
        }
    }

    /// The database that a backend or cluster names.
    fn database_of<'a>(
        &mut self,
        what: &str,
        name: &str,
        at: &At<String>,
        file: &'a file::File,
    ) -> Option<&'a file::Database> {
        let databases = file.databases.value();
        let found = databases.iter().find(|one| one.name.value() == at.value());
        if found.is_none() {
            let known: Vec<&String> = databases.iter().map(|one| one.name.value()).collect();
            let message = format!("{what} `{name}`: there is no database `{}`", at.value());
            self.problem(Problem::at(at.location(), message).hint(suggest(at.value(), &known)));
        }
        found
    }

    fn known_instance(&mut self, whose: &str, at: &At<String>, database: &file::Database) -> bool {
        let known: Vec<&String> = database.instances.value().iter().map(|one| one.name.value()).collect();
        if known.contains(&at.value()) {
            return true;
        }
        let message =
            format!("{whose}: database `{}` has no instance `{}`", database.name.value(), at.value());
        self.problem(Problem::at(at.location(), message).hint(suggest(at.value(), &known)));
        false
    }

    /// `agent-send` has the backend and the server but not the proxy, so proxies must not share names.
    pub(super) fn same_server_twice(&mut self, file: &file::File) {
        let mut seen = BTreeSet::new();
        for proxy in &file.proxies {
            for (name, backend) in proxy.value().backends.iter().flatten() {
                for (server, instance) in backend.servers.value() {
                    if !seen.insert((name, server)) {
                        let hint = "agent checks name backend and server only: give each proxy an agent, or its backends names of their own";
                        let message = format!("`{name}/{server}` is a server of two proxies");
                        self.problem(Problem::at(instance.location(), message).hint(hint));
                    }
                }
            }
        }
        let mut seen = BTreeSet::new();
        for proxy in &file.proxies {
            for (name, cluster) in proxy.value().clusters.iter().flatten() {
                if !seen.insert(name) {
                    let hint = "operators and health checks name cluster and instance only: give each a name of its own, \
                                or let Envoys with the same clusters be one entry without `node`";
                    let message = format!("`{name}` is a cluster of two proxies");
                    self.problem(Problem::at(cluster.database.location(), message).hint(hint));
                }
            }
        }
    }

    /// Two names for one database server would each have a login budget, and count as siblings.
    pub(super) fn same_address_twice(&mut self, file: &file::File) {
        let mut endpoints = BTreeSet::new();
        for instance in file.databases.value().iter().flat_map(|database| database.instances.value()) {
            let endpoint = &instance.endpoint;
            if !endpoints.insert(endpoint.value().to_lowercase()) {
                let message = format!("two instances have the endpoint `{}`", endpoint.value());
                let hint = "name each database server once, by its own endpoint";
                self.problem(Problem::at(endpoint.location(), message).hint(hint));
            }
        }
        let mut sockets = BTreeSet::new();
        for haproxy in file.proxies.iter().filter_map(|proxy| proxy.value().haproxy.as_ref()) {
            let socket = &haproxy.socket;
            if !sockets.insert(socket.value()) {
                let message = format!("two proxies have the socket `{}`", socket.value());
                let hint = "list all backends of one HAProxy below one socket";
                self.problem(Problem::at(socket.location(), message).hint(hint));
            }
        }
        let haproxies = file.proxies.iter().filter_map(|proxy| proxy.value().haproxy.as_ref());
        let mut logs = BTreeSet::new();
        for log in haproxies.filter_map(|haproxy| haproxy.log.as_ref()) {
            if !logs.insert(log.value()) {
                let message = format!("two proxies have the log `{}`", log.value());
                let hint = "give each HAProxy an address of its own for its log";
                self.problem(Problem::at(log.location(), message).hint(hint));
            }
        }
    }

    /// The address on which the log of a HAProxy is received.
    fn log_address(&mut self, at: &At<String>, remote: bool) -> Option<LogAddress> {
        if at.value().starts_with('/') {
            return Some(LogAddress::Unix(at.value().into()));
        }
        self.listener(Some(at), 7881, remote).map(LogAddress::Udp)
    }

    fn unix_or_tcp(&mut self, at: &At<String>) -> Option<Address> {
        if at.value().starts_with('/') {
            return Some(Address::Unix(at.value().into()));
        }
        self.address(at).map(|address| Address::Tcp(address.to_string()))
    }

    /// Envoy has no rules for names of clusters.
    fn cluster_name(&mut self, name: &str, at: &At<String>) {
        if name.is_empty() || name.contains(char::is_control) {
            let message = format!("`{}` cannot be the name of a cluster", name.escape_debug());
            let hint = "write the `name` of the cluster in Envoy's configuration";
            self.problem(Problem::at(at.location(), message).hint(hint));
        }
    }

    /// Names are used in commands to HAProxy, which have no quoting.
    fn proxy_name(&mut self, name: &str, what: &str, at: &At<String>) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            let message = format!("`{}` cannot be the name of a {what}", name.escape_debug());
            let hint = "it has letters, digits, `-`, `_`, `.` and `:`";
            self.problem(Problem::at(at.location(), message).hint(hint));
        }
    }

    fn socket(&mut self, at: &At<String>) -> Option<haproxy::Address> {
        match at.value().parse() {
            Ok(address) => Some(address),
            Err(error) => {
                let hint = "write the address of `stats socket` in haproxy.cfg";
                self.problem(Problem::at(at.location(), error).hint(hint));
                None
            }
        }
    }
}

/// Whether a HAProxy has a server of this name.
fn is_server_of_haproxy(file: &file::File, backend: &str, server: &str) -> bool {
    let backends = file.proxies.iter().filter_map(|proxy| proxy.value().backends.as_ref()?.get(backend));
    backends.into_iter().any(|backend| backend.servers.value().contains_key(server))
}

fn server_config(
    (proxy, backend, server): (ProxyIndex, &str, &str),
    database: &file::Database,
    instance: &At<String>,
    role: file::Role,
    commandable: bool,
) -> ServerConfig {
    ServerConfig {
        id: ServerId::new(proxy, backend, server),
        instance: InstanceId::new(database.name.value(), instance.value()),
        wanted: match role {
            file::Role::Writer => WantedRole::Writer,
            file::Role::Reader => WantedRole::Reader,
            file::Role::Any => WantedRole::Any,
        },
        commandable,
    }
}
