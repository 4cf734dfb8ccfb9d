//! The tasks of all configured Envoys: they share one listener and the addresses of the
//! instances, so they are put together here at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use agent_core::{InstanceId, health::ServerConfig, plan::Mode};
use envoy::{
    admin::Setup,
    resolve::{self, News, System},
};
use tokio::sync::{mpsc, watch};

use super::{COMMANDS, Task};
use crate::{
    config::{Address, Config, Database, Proxy, ProxyKind, file::Engine},
    decider::Routes,
    events::{AddressFound, AddressLost, Event},
    proxies::envoy::{
        access_log, admin, drains, drains::Drained, endpoints, endpoints::Addresses, hand_offs,
        hand_offs::HandOffs,
    },
    shared::Shared,
    state::log::PositionFile,
};

/// The `access_log_flush_interval` of the configuration in `deploy/envoy`: a longer one is
/// learned from the admin interface.
const FLUSH: Duration = Duration::from_secs(10);

/// Says who is looked after, and nothing else yet, so that whoever calls first is not told
/// that its clusters are not there, and no health check passes for one that nobody knows.
pub(super) fn begin(config: &Config, shared: &Shared) {
    let fleet = shared.snapshot.borrow().fleet.clone();
    let envoys = config.proxies.iter().filter_map(|proxy| match &proxy.kind {
        ProxyKind::Envoy(envoy) => Some((proxy, envoy)),
        ProxyKind::Haproxy(_) => None,
    });
    let told = envoys.map(|(proxy, envoy)| {
        endpoints::nothing_known(proxy.name(), envoy.node.clone(), &proxy.servers, &fleet)
    });
    shared.envoys.publish(told.collect());
}

/// Adds the tasks of all Envoys, if there are any.
pub(super) fn tasks(config: &Config, shared: &Shared, routes: &mut Routes, tasks: &mut Vec<Task>) {
    let (found, addresses) = watch::channel(Addresses::new());
    let told = HandOffs::default();
    let (longest, flush) = watch::channel(FLUSH);
    let mut endpoints = Vec::new();
    let mut logs = Vec::new();
    for (index, proxy) in config.proxies.iter().enumerate() {
        let ProxyKind::Envoy(envoy) = &proxy.kind else { continue };
        let drained = Drained::default();
        let (sender, commands) = mpsc::channel(COMMANDS);
        routes.proxies.insert(index, (sender, proxy.name()));
        let connected = {
            let (envoys, node) = (shared.envoys.clone(), envoy.node.clone());
            move || envoys.connected(node.as_deref())
        };
        let drains = drains::Config {
            proxy: index,
            servers: proxy.servers.iter().map(|server| server.id.clone()).collect(),
            drained: drained.clone(),
            connected: connected.clone(),
        };
        tasks.push(Box::pin(drains::run(drains, shared.clone(), commands)));
        if let Some(address) = &envoy.admin {
            let look = admin::Config {
                name: proxy.name(),
                address: address.clone(),
                setup: setup(config, proxy),
                flush: longest.clone(),
            };
            let (told, name, connected) = (shared.envoys.told(), proxy.name(), connected.clone());
            let sent = move || if connected() { told.borrow().sent_to(&name) } else { None };
            tasks.push(Box::pin(admin::run(look, sent, shared.clone())));
        }
        if let Some(log) = &envoy.access_log {
            let position = PositionFile::in_directory(&config.state_dir, index, log);
            let follow = hand_offs::follow(proxy.name(), log.clone(), position, told.clone(), shared.clone());
            tasks.push(Box::pin(follow));
        }
        endpoints.push(endpoints::Config {
            proxy: proxy.name(),
            node: envoy.node.clone(),
            servers: proxy.servers.clone(),
            drained: drained.clone(),
        });
        logs.push(access_log::Config {
            proxy: index,
            name: proxy.name(),
            node: envoy.node.clone(),
            servers: proxy.servers.clone(),
            drained,
            connected: Box::new(connected),
        });
    }
    if endpoints.is_empty() {
        // One that was configured before is told nothing more, and keeps what it has.
        let envoys = shared.envoys.clone();
        tasks.push(Box::pin(async move { envoys.publish(Vec::new()) }));
        return;
    }
    tasks.push(Box::pin(follow_names(names(config), found, shared.clone())));
    tasks.push(Box::pin(endpoints::run(endpoints, addresses.clone(), shared.clone())));
    let same_host = match &config.listen.envoy {
        Some(Address::Tcp(address)) => {
            address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
        }
        Some(Address::Unix(_)) | None => true,
    };
    let shared = shared.clone();
    tasks.push(Box::pin(async move {
        let mut heard = shared.envoys.heard().await;
        heard.set_same_host(same_host);
        access_log::run(logs, flush, heard, addresses, told, shared).await;
    }));
}

/// What an Envoy's settings are to be fit for.
fn setup(config: &Config, proxy: &Proxy) -> Setup {
    let server_first = |instance: &InstanceId| {
        let own = |database: &&Database| database.instances.iter().any(|it| it.id() == instance);
        config.databases.iter().find(own).is_some_and(|database| database.engine != Engine::Postgresql)
    };
    let cluster = |server: &ServerConfig| server.id.backend.to_string();
    let mysql = proxy.servers.iter().filter(|server| server_first(&server.instance));
    Setup {
        clusters: proxy.servers.iter().map(cluster).collect(),
        server_first: mysql.map(cluster).collect(),
        max_age: (config.sessions.mode == Mode::Retire).then_some(config.sessions.max_age),
    }
}

/// Where the instances behind Envoys are dialled.
fn names(config: &Config) -> BTreeMap<InstanceId, resolve::Target> {
    let envoys = config.proxies.iter().filter(|proxy| matches!(proxy.kind, ProxyKind::Envoy(_)));
    let wanted: BTreeSet<&InstanceId> =
        envoys.flat_map(|proxy| &proxy.servers).map(|server| &server.instance).collect();
    config
        .instances()
        .filter(|(_, instance)| wanted.contains(instance.id()))
        .map(|(_, instance)| {
            let connect = &instance.target.connect;
            let target = resolve::Target { host: connect.host.to_string(), port: connect.port };
            (instance.id().clone(), target)
        })
        .collect()
}

async fn follow_names(
    names: BTreeMap<InstanceId, resolve::Target>,
    found: watch::Sender<Addresses>,
    shared: Shared,
) {
    let report = |news: News<'_, InstanceId>| match news {
        News::Found(instance, addresses) => AddressFound { instance, addresses }.emit(&shared.metrics),
        News::Lost(instance, error) => AddressLost { instance, error }.emit(&shared.metrics),
    };
    resolve::resolve(&names, &System, &found, report).await;
}
