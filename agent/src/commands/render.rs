//! `render`: configurations from the agent's own. Their texts are in the crate [`doctor`](::doctor).

use std::collections::{BTreeMap, BTreeSet};

use agent_core::{
    health::{ServerConfig, WantedRole},
    plan::Mode,
};
use agent_database::{Address, TrustSource};
use doctor::render::{self, Backend, ClientFiles, Feature, Login, Plan, Server};

use super::{Exit, complain, print};
use crate::{
    cli::{AwsFeature, Render, Rendered},
    config::{
        self, Config, Database, Instance, Proxy, ProxyKind,
        file::{Engine, TokenFormat},
    },
};

pub(super) fn render(arguments: &Render) -> Exit {
    let config = match config::load(&arguments.config.config) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            eprint!("{problems}");
            return Exit::Usage;
        }
    };
    match text(arguments, &config) {
        Ok(text) => {
            print(text.trim_end());
            Exit::Ok
        }
        Err(error) => {
            complain(error);
            Exit::Usage
        }
    }
}

fn text(arguments: &Render, config: &Config) -> Result<String, String> {
    let haproxy = |proxy: &&Proxy| matches!(proxy.kind, ProxyKind::Haproxy(_));
    match arguments.what {
        Rendered::Haproxy => {
            let proxy = config.proxies.iter().find(haproxy).ok_or("the configuration has no HAProxy")?;
            Ok(render::haproxy(&plan(arguments, config, proxy)?))
        }
        Rendered::Envoy => {
            let proxy = config.proxies.iter().find(|proxy| !haproxy(proxy));
            let proxy = proxy.ok_or("the configuration has no Envoy")?;
            Ok(render::envoy(&plan(arguments, config, proxy)?))
        }
        Rendered::Client => {
            let proxy = config.proxies.first().ok_or("the configuration has no proxy")?;
            Ok(render::clients(&plan(arguments, config, proxy)?, &arguments.user))
        }
        Rendered::Grants => {
            let closing = config.sessions.mode == Mode::Retire;
            let of = |database: &Database| {
                let user = database.instances.first().map_or("", |instance| &*instance.target.user);
                let (mysql, mariadb) = (mysql(database), database.engine == Engine::Mariadb);
                let text = render::grants(mysql, mariadb, user, closing)?;
                Ok(format!("-- === database {} ===\n{text}", database.name))
            };
            let texts: Result<Vec<String>, String> = config.databases.iter().map(of).collect();
            Ok(texts?.join("\n"))
        }
        Rendered::Iam => {
            let mut features = BTreeSet::new();
            for feature in &arguments.feature {
                // The doctor reads the topology too.
                features.insert(Feature::Topology);
                if *feature == AwsFeature::Doctor {
                    features.insert(Feature::Doctor);
                }
            }
            Ok(render::policy(&arguments.account, &logins(arguments, config)?, &features))
        }
    }
}

/// The backends of one proxy, with the ports of their clients.
fn plan(arguments: &Render, config: &Config, proxy: &Proxy) -> Result<Plan, String> {
    let mut clusters: BTreeMap<String, (String, u16)> = pairs("--cluster", &arguments.cluster, address)?;
    let mut backends: Vec<Backend> = Vec::new();
    for server in &proxy.servers {
        let Some((database, instance)) = instance(config, server) else { continue };
        let name = &*server.id.backend;
        if backends.last().is_none_or(|backend| backend.name != name) {
            backends.push(Backend {
                name: name.to_owned(),
                mysql: mysql(database),
                writer: server.wanted == WantedRole::Writer,
                cluster: clusters.remove(name),
                database_name: instance.target.database_name.to_string(),
                ..Backend::default()
            });
        }
        let target = &instance.target;
        let of = |address: &Address| (address.host.to_string(), address.port);
        let server = Server {
            name: server.id.server.to_string(),
            endpoint: of(&target.endpoint),
            connect: of(&target.connect),
        };
        if let Some(backend) = backends.last_mut() {
            backend.servers.push(server);
        }
    }
    if let Some(unknown) = clusters.keys().next() {
        return Err(format!("--cluster: there is no backend `{unknown}`"));
    }
    // The writer's backend has the port that clients expect.
    backends.sort_by_key(|backend| !backend.writer);
    let first =
        backends.first().and_then(|backend| backend.servers.first()).map_or(5432, |server| server.connect.1);
    for (port, backend) in (arguments.port.unwrap_or(first)..).zip(&mut backends) {
        backend.port = port;
    }
    let listen = &config.listen;
    let mut plan = Plan {
        agent_check: (listen.agent_check.ip().to_string(), listen.agent_check.port()),
        envoy_socket: listen.envoy.as_ref().map(ToString::to_string).unwrap_or_default(),
        bind: arguments.bind.to_string(),
        files: files(config, &arguments.user),
        backends,
        ..Plan::default()
    };
    match &proxy.kind {
        ProxyKind::Haproxy(haproxy) => {
            plan.stats_socket = Some(haproxy.socket.to_string());
            plan.state_file = haproxy.state_file.as_ref().map(|path| path.display().to_string());
            plan.log = haproxy.log.as_ref().map(ToString::to_string);
        }
        ProxyKind::Envoy(envoy) => {
            plan.node.clone_from(&envoy.node);
            plan.envoy_admin = envoy.admin.as_ref().map(ToString::to_string);
            plan.access_log = envoy.access_log.as_ref().map(|path| path.display().to_string());
            if listen.envoy.as_ref().is_some_and(|address| matches!(address, config::Address::Tcp(_))) {
                return Err(
                    "`listen.envoy` is an address and a port; only a Unix socket can be rendered".into()
                );
            }
            if envoy.admin.as_ref().is_some_and(|address| matches!(address, config::Address::Tcp(_))) {
                return Err("`admin` is an address and a port; only a Unix socket can be rendered".into());
            }
        }
    }
    Ok(plan)
}

/// The files that the configuration names for this user.
fn files(config: &Config, user: &str) -> ClientFiles {
    let mut files = ClientFiles::default();
    for file in config.token_files.iter().filter(|file| file.user == user) {
        let path = match file.format {
            TokenFormat::Pgpass => &mut files.pgpass,
            TokenFormat::Mysql => &mut files.option,
            TokenFormat::Plain => &mut files.plain,
        };
        *path = file.path.display().to_string();
    }
    if let Some(TrustSource::File(path)) = config.databases.first().map(|database| &database.trust) {
        files.ca = path.display().to_string();
    }
    files
}

/// The logins of the agent and of the clients.
fn logins(arguments: &Render, config: &Config) -> Result<Vec<Login>, String> {
    let mut resources = pairs("--resource", &arguments.resource, |text| Some(text.to_owned()))?;
    let mut logins = Vec::new();
    for (_, instance) in config.instances() {
        let id = instance.id().to_string();
        let resource =
            resources.remove(&id).unwrap_or_else(|| format!("RESOURCE-ID-OF-{}", id.replace('/', "-")));
        let region = instance.region.clone().unwrap_or_else(|| "REGION".into());
        for user in [&*instance.target.user, &arguments.user] {
            let (region, resource) = (region.clone(), resource.clone());
            logins.push(Login { region, resource, user: user.to_owned() });
        }
    }
    match resources.keys().next() {
        Some(unknown) => Err(format!("--resource: there is no instance `{unknown}`")),
        None => Ok(logins),
    }
}

fn instance<'a>(config: &'a Config, server: &ServerConfig) -> Option<(&'a Database, &'a Instance)> {
    config.instances().find(|(_, instance)| *instance.id() == server.instance)
}

fn mysql(database: &Database) -> bool {
    database.engine != Engine::Postgresql
}

/// Arguments of the form `NAME=VALUE`.
fn pairs<T>(
    flag: &str,
    texts: &[String],
    value: impl Fn(&str) -> Option<T>,
) -> Result<BTreeMap<String, T>, String> {
    let pair = |text: &String| {
        let pair = text.split_once('=').and_then(|(name, text)| Some((name.to_owned(), value(text)?)));
        pair.ok_or_else(|| format!("{flag}: `{text}` is not NAME=VALUE"))
    };
    texts.iter().map(pair).collect()
}

fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}
