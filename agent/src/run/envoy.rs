//! The tasks of all configured Envoys. They are created together because they share a listener and the
//! resolved addresses of the instances.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use agent_core::{InstanceId, ProxyIndex, health::ServerConfig, plan::Mode};
use envoy::{
    admin::Setup,
    resolve::{self, News, System},
};
use tokio::sync::{mpsc, watch};

use super::{COMMANDS, Task};
use crate::{
    config::{Address, Config, Database, Proxy, ProxyKind, file::Engine},
    decider::{Orders, ProxyRoute, Routes},
    events::{AddressFound, AddressLost, Event},
    proxies::envoy::{
        access_log, admin, discovery::Envoys, drains, drains::Drained, endpoints, hand_offs, hand_offs::Ends,
        session_addresses::Addresses,
    },
    shared::Shared,
    state::log::PositionFile,
};

/// The `access_log_flush_interval` in `deploy/envoy`. A longer one is read from the admin interface.
const FLUSH: Duration = Duration::from_secs(10);

/// Publishes the configured clusters without endpoints, so that an Envoy that connects early is not told
/// that its clusters do not exist, and health checks of other clusters do not pass.
pub(super) fn begin(config: &Config, envoys: &Envoys, shared: &Shared) {
    let fleet = shared.snapshot.borrow().fleet.clone();
    let configured = config.proxies.iter().filter_map(|proxy| match &proxy.kind {
        ProxyKind::Envoy(envoy) => Some((proxy, envoy)),
        ProxyKind::Haproxy(_) => None,
    });
    let published = configured.map(|(proxy, envoy)| {
        endpoints::nothing_known(proxy.name(), envoy.node.clone(), &proxy.servers, &fleet)
    });
    envoys.publish(published.collect());
}

/// Adds the tasks of all Envoys, if there are any.
pub(super) fn tasks(
    config: &Config,
    envoys: &Envoys,
    shared: &Shared,
    routes: &mut Routes,
    tasks: &mut Vec<Task>,
) {
    let (found, addresses) = watch::channel(Addresses::new());
    let reported = Ends::default();
    let (longest, flush) = watch::channel(FLUSH);
    let mut endpoints = Vec::new();
    let mut logs = Vec::new();
    for (index, proxy) in config.proxies.iter().enumerate() {
        let ProxyKind::Envoy(envoy) = &proxy.kind else { continue };
        let index = ProxyIndex(index);
        let drained = Drained::default();
        let (sender, commands) = mpsc::channel(COMMANDS);
        let connected = {
            let (envoys, node) = (envoys.clone(), envoy.node.clone());
            move || envoys.connected(node.as_deref())
        };
        let orders = Orders::Envoy { orders: sender, connected: Box::new(connected.clone()) };
        routes.proxies.insert(index, ProxyRoute { name: proxy.name(), orders });
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
            let (published, name, connected) = (envoys.published(), proxy.name(), connected.clone());
            let sent = move || if connected() { published.borrow().sent_to(&name) } else { None };
            tasks.push(Box::pin(admin::run(look, sent, shared.clone())));
        }
        if let Some(log) = &envoy.access_log {
            let position = PositionFile::in_directory(&config.state_dir, index, log);
            let follow =
                hand_offs::follow(proxy.name(), log.clone(), position, reported.clone(), shared.clone());
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
        // Envoys that are no longer configured get no updates and keep their endpoints.
        let envoys = envoys.clone();
        tasks.push(Box::pin(async move { envoys.publish(Vec::new()) }));
        return;
    }
    tasks.push(Box::pin(follow_names(names(config), found, shared.clone())));
    tasks.push(Box::pin(endpoints::run(endpoints, addresses.clone(), envoys.clone(), shared.clone())));
    let same_host = match &config.listen.envoy {
        Some(Address::Tcp(address)) => {
            address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
        }
        Some(Address::Unix(_)) | None => true,
    };
    let (envoys, shared) = (envoys.clone(), shared.clone());
    tasks.push(Box::pin(async move {
        let mut access_logs = envoys.access_logs().await;
        access_logs.set_same_host(same_host);
        access_log::run(logs, flush, access_logs, addresses, reported, shared).await;
    }));
}

/// What the settings of an Envoy are checked against.
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

/// The names of the instances behind Envoys, to be resolved.
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
