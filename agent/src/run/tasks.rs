//! The tasks of one configuration, put together and not started.

use std::collections::HashMap;

use agent_core::{ProxyIndex, ServerId, plan::Mode};
use tokio::sync::mpsc;

use super::{COMMANDS, Task, database::DatabaseTasks, envoy, logins::Logins};
use crate::{
    config::{Config, Proxy, ProxyKind},
    decider::{Orders, ProxyRoute, Routes},
    instances::credentials,
    proxies::{
        envoy::discovery::Envoys,
        haproxy::{admin, rivals, sweeps},
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
    let config = admin::Config {
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
    tasks.push(Box::pin(rivals::run(haproxy.socket.clone(), state_dir, shared.clone())));
    tasks.push(Box::pin(sweeps::run(config.clone(), shared.clone())));
    tasks.push(Box::pin(admin::run(config, shared.clone(), commands)));
}
