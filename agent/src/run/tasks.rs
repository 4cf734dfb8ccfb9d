//! The tasks of one configuration, put together and not started.

use std::collections::HashMap;

use agent_core::{ProxyIndex, ServerId, health::ServerConfig, plan::Mode};
use tokio::sync::mpsc;

use super::{COMMANDS, Task, database::DatabaseTasks, envoy, logins::Logins};
use crate::{
    config::{Config, Database, LogAddress, Proxy, ProxyKind, file::Engine},
    decider::{Orders, ProxyRoute, Routes},
    hand_offs::haproxy::Server,
    instances::credentials,
    proxies::{
        envoy::discovery::Envoys,
        haproxy::{admin, log, rivals, sweeps},
        journal,
    },
    seen,
    shared::Shared,
    token_files, topology,
};

/// The tasks of a generation, made before the previous generation is stopped.
pub(super) struct Prepared {
    pub(super) routes: Routes,
    pub(super) tasks: Vec<Task>,
    pub(super) logins: Logins,
}

impl Prepared {
    /// `before` are the logins of the configuration in force.
    pub(super) fn new(config: &Config, envoys: &Envoys, shared: &Shared, before: Option<&Logins>) -> Self {
        let mut routes = Routes::default();
        let mut tasks: Vec<Task> = Vec::new();
        let logins = Logins::new(config, before);
        for database in &config.databases {
            let (database, orders) = DatabaseTasks::new(database, &config.sessions, &logins, shared);
            routes.instances.extend(orders);
            tasks.push(Box::pin(database.run()));
        }
        for database in config.databases.iter().filter(|database| database.topology.is_some()) {
            tasks.push(Box::pin(topology::run(database.clone(), logins.chain.clone(), shared.clone())));
        }
        for (index, proxy) in config.proxies.iter().enumerate() {
            haproxy_tasks(ProxyIndex(index), proxy, config, shared, &mut routes, &mut tasks);
        }
        envoy::tasks(config, envoys, shared, &mut routes, &mut tasks);
        tasks.push(Box::pin(journal::run(shared.clone())));
        for file in &config.token_files {
            tasks.push(Box::pin(token_files::run(file.clone(), logins.chain.clone(), shared.clone())));
        }
        if config.sessions.mode == Mode::Retire {
            tasks.push(Box::pin(credentials::run(logins.chain.clone(), shared.clone())));
        }
        Self { routes, tasks, logins }
    }
}

fn haproxy_tasks(
    index: ProxyIndex,
    proxy: &Proxy,
    config: &Config,
    shared: &Shared,
    routes: &mut Routes,
    tasks: &mut Vec<Task>,
) {
    let ProxyKind::Haproxy(haproxy) = &proxy.kind else { return };
    let servers: HashMap<(String, String), ServerId> = proxy
        .servers
        .iter()
        .map(|server| ((server.id.backend.to_string(), server.id.server.to_string()), server.id.clone()))
        .collect();
    let (sender, commands) = mpsc::channel(COMMANDS);
    routes.proxies.insert(index, ProxyRoute { name: proxy.name(), orders: Orders::Haproxy(sender) });
    let state_dir = config.state_dir.display().to_string();
    let admin = admin::Config {
        proxy: index,
        socket: haproxy.socket.clone(),
        master: haproxy.master.clone(),
        state_file: haproxy.state_file.clone(),
        follow_addresses: haproxy.follow_addresses,
        expected: seen::Expected {
            servers: servers.keys().cloned().collect(),
            agent_port: config.listen.agent_check.port(),
            http_port: config.listen.http.port(),
        },
        servers,
        limits: haproxy::runtime::Limits::default(),
    };
    if let Some(address) = &haproxy.log {
        let config = log::Config {
            proxy: proxy.name(),
            address: address.clone(),
            servers: proxy.servers.iter().map(|server| log_server(config, server)).collect(),
        };
        tasks.push(Box::pin(log::run(config, shared.clone())));
    }
    tasks.push(Box::pin(rivals::run(haproxy.socket.clone(), state_dir, shared.clone())));
    tasks.push(Box::pin(sweeps::run(admin.clone(), shared.clone())));
    tasks.push(Box::pin(admin::run(admin, shared.clone(), commands)));
}

/// A server, for the lines of its sessions.
fn log_server(config: &Config, server: &ServerConfig) -> Server {
    let of = |database: &&Database| *database.name == *server.instance.database.as_str();
    let engine = config.databases.iter().find(of).map(|database| database.engine);
    Server {
        backend: server.id.backend.to_string().into(),
        server: server.id.server.to_string().into(),
        instance: server.instance.clone(),
        greets: engine.is_some_and(|engine| engine != Engine::Postgresql),
    }
}

/// The HAProxies whose log is received, and where.
pub(super) fn logs(config: &Config) -> (Vec<String>, Vec<LogAddress>) {
    let log = |proxy: &Proxy| match &proxy.kind {
        ProxyKind::Haproxy(haproxy) => Some((proxy.name(), haproxy.log.clone()?)),
        ProxyKind::Envoy(_) => None,
    };
    config.proxies.iter().filter_map(log).unzip()
}
