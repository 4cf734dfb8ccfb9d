//! Proxies, their backends, and which of their servers is which instance.

use std::collections::BTreeSet;

use agent_core::{
    InstanceId, ServerId,
    health::{ServerConfig, WantedRole},
};

use super::{
    super::{
        Problem, Proxy,
        file::{self, At},
        problem::suggest,
    },
    Check,
};

impl Check {
    pub(super) fn proxy(&mut self, index: usize, proxy: &file::Proxy, file: &file::File) -> Option<Proxy> {
        let socket = self.socket(&proxy.haproxy.socket);
        let master = proxy.haproxy.master.as_ref().map(|master| self.socket(master));
        let mut servers = Vec::new();
        for (name, backend) in &proxy.backends {
            self.backend(index, name, backend, file, &mut servers);
        }
        Some(Proxy {
            socket: socket?,
            master: master.map_or(Some(None), |master| master.map(Some))?,
            servers,
        })
    }

    fn backend(
        &mut self,
        proxy: usize,
        name: &str,
        backend: &file::Backend,
        file: &file::File,
        servers: &mut Vec<ServerConfig>,
    ) {
        self.proxy_name(name, "backend", &backend.database);
        let databases = file.databases.value();
        let Some(database) = databases.iter().find(|one| one.name.value() == backend.database.value()) else {
            let known: Vec<&String> = databases.iter().map(|one| one.name.value()).collect();
            let message = format!("backend `{name}`: there is no database `{}`", backend.database.value());
            let hint = suggest(backend.database.value(), &known);
            return self.problem(Problem::at(backend.database.location(), message).hint(hint));
        };
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
            let instances = database.instances.value();
            if !instances.iter().any(|one| one.name.value() == instance.value()) {
                let known: Vec<&String> = instances.iter().map(|one| one.name.value()).collect();
                let message = format!(
                    "server `{server}`: database `{}` has no instance `{}`",
                    database.name.value(),
                    instance.value()
                );
                let hint = suggest(instance.value(), &known);
                self.problem(Problem::at(instance.location(), message).hint(hint));
                continue;
            }
            servers.push(ServerConfig {
                id: ServerId::new(proxy, name, server),
                instance: InstanceId::new(database.name.value(), instance.value()),
                wanted: match backend.role {
                    file::Role::Writer => WantedRole::Writer,
                    file::Role::Reader => WantedRole::Reader,
                    file::Role::Any => WantedRole::Any,
                },
            });
        }
    }

    /// `agent-send` carries backend and server, not the proxy: two proxies must not share a name.
    pub(super) fn same_server_twice(&mut self, file: &file::File) {
        let mut seen = BTreeSet::new();
        for proxy in &file.proxies {
            for (name, backend) in &proxy.backends {
                for (server, instance) in backend.servers.value() {
                    if !seen.insert((name, server)) {
                        let hint = "agent checks name backend and server only: give each proxy an agent, or its backends names of their own";
                        let message = format!("`{name}/{server}` is a server of two proxies");
                        self.problem(Problem::at(instance.location(), message).hint(hint));
                    }
                }
            }
        }
    }

    /// Two names for one server would each spend its login budget, and be each other's sibling.
    pub(super) fn same_place_twice(&mut self, file: &file::File) {
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
        for proxy in &file.proxies {
            let socket = &proxy.haproxy.socket;
            if !sockets.insert(socket.value()) {
                let message = format!("two proxies have the socket `{}`", socket.value());
                let hint = "list all backends of one HAProxy below one socket";
                self.problem(Problem::at(socket.location(), message).hint(hint));
            }
        }
    }

    /// Names go into commands to HAProxy, which knows no quoting.
    fn proxy_name(&mut self, name: &str, what: &str, at: &At<String>) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            let message = format!("`{}` cannot be the name of a {what}", name.escape_debug());
            let hint = "HAProxy allows letters, digits, `-`, `_`, `.` and `:`";
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
