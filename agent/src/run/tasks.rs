//! The tasks of one configuration, put together and not started.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent_aws::source::TokenSource;
use agent_core::{ServerId, plan::Mode};
use agent_database::{Limits, TlsTrust};
use tokio::{sync::mpsc, time::Instant};

use super::{COMMANDS, Task, envoy, tokens::Tokens};
use crate::{
    config::{Config, Database, Proxy, ProxyKind},
    decider::{Orders, ProxyRoute, Routes},
    engine,
    events::Episodes,
    instances::{
        addresses, credentials, door::Door, host_block, liveness, probe, sessions, unfinished::Unfinished,
    },
    proxies::{
        envoy::discovery::Envoys,
        haproxy::{admin, sweeps},
    },
    shared::Shared,
};

/// Everything of a generation that can fail, made before the previous generation is stopped.
pub(super) struct Prepared {
    pub(super) routes: Routes,
    pub(super) tasks: Vec<Task>,
    pub(super) tokens: Tokens,
}

impl Prepared {
    /// `before` are the tokens of the configuration in force.
    pub(super) async fn new(
        config: &Config,
        envoys: &Envoys,
        shared: &Shared,
        before: Option<&Tokens>,
    ) -> Result<Self, String> {
        let mut routes = Routes::default();
        let mut tasks: Vec<Task> = Vec::new();
        let mut tokens = Tokens::new(config, before);
        for database in &config.databases {
            let mut sources = Vec::new();
            for instance in &database.instances {
                sources.push(tokens.source(instance, before).await?);
            }
            database_tasks(config, database, sources, shared, &mut routes, &mut tasks)?;
        }
        for (index, proxy) in config.proxies.iter().enumerate() {
            haproxy_tasks(index, proxy, shared, &mut routes, &mut tasks);
        }
        envoy::tasks(config, envoys, shared, &mut routes, &mut tasks);
        if config.sessions.mode == Mode::Retire {
            tasks.push(Box::pin(credentials::run(tokens.chain.clone(), shared.clone())));
        }
        Ok(Self { routes, tasks, tokens })
    }
}

fn database_tasks(
    config: &Config,
    database: &Database,
    sources: Vec<Arc<TokenSource>>,
    shared: &Shared,
    routes: &mut Routes,
    tasks: &mut Vec<Task>,
) -> Result<(), String> {
    let trust = Arc::new(TlsTrust::load(database.trust.clone()).map_err(|error| error.to_string())?);
    let engine = engine::of(database);
    for (instance, tokens) in database.instances.iter().zip(sources) {
        let door = Arc::new(Door {
            target: instance.target.clone(),
            engine: engine.clone(),
            trust: trust.clone(),
            tokens,
            limits: Limits::default(),
            shared: shared.clone(),
            episodes: Mutex::new(Episodes::default()),
            unfinished: engine::blocks_hosts(database).then(|| Mutex::new(Unfinished::new(Instant::now()))),
        });
        tasks.push(Box::pin(probe::run(door.clone(), database.probe_interval)));
        tasks.push(Box::pin(addresses::run(door.clone(), database.probe_interval)));
        if !database.liveness {
            continue;
        }
        tasks.push(Box::pin(liveness::run(door.clone())));
        if engine::blocks_hosts(database) {
            tasks.push(Box::pin(host_block::run(door.clone())));
        }
        let (sender, commands) = mpsc::channel(COMMANDS);
        routes.instances.insert(instance.id().clone(), sender);
        let sessions_config = sessions::Config {
            interval: (config.sessions.max_age / 20)
                .clamp(Duration::from_millis(500), Duration::from_secs(5)),
            method: database.method,
            closing: config.sessions.mode == Mode::Retire,
        };
        tasks.push(Box::pin(sessions::run(door, sessions_config, commands)));
    }
    Ok(())
}

fn haproxy_tasks(index: usize, proxy: &Proxy, shared: &Shared, routes: &mut Routes, tasks: &mut Vec<Task>) {
    let ProxyKind::Haproxy(haproxy) = &proxy.kind else { return };
    let servers: HashMap<(String, String), ServerId> = proxy
        .servers
        .iter()
        .map(|server| ((server.id.backend.to_string(), server.id.server.to_string()), server.id.clone()))
        .collect();
    let (sender, commands) = mpsc::channel(COMMANDS);
    routes.proxies.insert(index, ProxyRoute { name: proxy.name(), orders: Orders::Haproxy(sender) });
    let config = admin::Config {
        proxy: index,
        socket: haproxy.socket.clone(),
        master: haproxy.master.clone(),
        state_file: haproxy.state_file.clone(),
        follow_addresses: haproxy.follow_addresses,
        servers,
        limits: haproxy::runtime::Limits::default(),
    };
    tasks.push(Box::pin(sweeps::run(config.clone(), shared.clone())));
    tasks.push(Box::pin(admin::run(config, shared.clone(), commands)));
}
